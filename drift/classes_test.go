package drift

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/churnstream/churnstream/schemas"
)

func TestClassesFollowTheWeekOfTheirZone(t *testing.T) {
	for _, c := range []struct {
		by, zone, at, want string
		classes            int
	}{
		{"weekend/6h", "UTC", "2026-11-20T23:59:59Z", "Mon-Fri 18-24h", 8}, // a Friday
		{"weekend/6h", "UTC", "2026-11-21T00:00:00Z", "Sat-Sun 00-06h", 8},
		{"weekend/6h", "Europe/Berlin", "2026-11-20T23:00:00Z", "Sat-Sun 00-06h", 8},
		{"weekend", "UTC", "2026-11-22T12:00:00Z", "Sat-Sun", 2},
		{"weekdays", "UTC", "2026-11-23T00:00:00Z", "Mon", 7},
		{"weekdays/1h", "Europe/Berlin", "2026-07-06T07:10:00Z", "Mon 09-10h", 168}, // summer time
		{"weekdays/1h", "Europe/Berlin", "2026-12-07T07:10:00Z", "Mon 08-09h", 168},
		{"12h", "Asia/Kolkata", "2026-12-07T06:29:59.999Z", "00-12h", 2}, // five and a half hours ahead
		{"12h", "Asia/Kolkata", "2026-12-07T06:30:00Z", "12-24h", 2},
		{"3h", "America/New_York", "1970-01-01T00:00:00.001Z", "18-21h", 8},
	} {
		classes, err := NewClasses(c.by, c.zone)
		require.NoError(t, err)
		require.Len(t, classes.Labels, c.classes)
		at, err := time.Parse(time.RFC3339Nano, c.at)
		require.NoError(t, err)
		finder := newClassFinder(classes)
		for _, before := range []time.Duration{0, 100 * time.Hour, -time.Minute, time.Minute} {
			finder.at(at.Add(-before).UnixMilli())
			require.Equal(t, c.want, classes.Labels[finder.at(at.UnixMilli())], "%+v", c)
		}
	}
}

func TestClassesAreRefusedThatNoClockTells(t *testing.T) {
	for _, by := range []string{"", "/", "hours", "5h", "24h", "6", "06h", "+6h", "weekend/", "/6h", "6h/weekend", "weekend/weekdays", "weekdays/0h", "weekend/6h/6h"} {
		_, err := NewClasses(by, "UTC")
		require.ErrorContains(t, err, "such as weekend/6h", by)
	}
	for _, zone := range []string{"", "Local", "Mars/Olympus", "../etc/passwd"} {
		_, err := NewClasses("weekend", zone)
		require.ErrorContains(t, err, "name one such as UTC", zone)
	}
}

// shifting is a population that differs by hour: a number that is higher by day, from 8 to 20 h UTC, and a plan whose score
// has a segment.
func shifting(random *rand.Rand, rows *schemas.Rows, at int64, more float64) (probability float64) {
	numbers, categories := rows.Row(rows.Append())
	numbers[0] = random.NormFloat64() + more
	if hour := at / (60 * minute) % 24; hour >= 8 && hour < 20 {
		numbers[0] += 1.5
	}
	categories[1] = []byte([]string{"monthly", "yearly"}[random.IntN(2)])
	return 1 / (1 + math.Exp(-random.NormFloat64()))
}

// shiftingProfile is one of four weeks, an event a minute, by classes or none.
func shiftingProfile(t testing.TB, by string) (*Profile, schemas.Contract) {
	t.Helper()
	contract := schemas.Contract{Inputs: []schemas.Input{{Name: "usage", Kind: schemas.Number}, {Name: "plan", Kind: schemas.Category}}}
	random := rand.New(rand.NewPCG(1, 1))
	const n = 28 * 1440
	reference := Reference{Rows: schemas.NewRows(2, n)}
	for i := range int64(n) {
		at := hour + i*minute
		reference.Probabilities = append(reference.Probabilities, shifting(random, reference.Rows, at, 0))
		reference.Times = append(reference.Times, at)
	}
	cfg := DefaultProfileConfig()
	cfg.Segments = []string{"plan"}
	if by != "" {
		var err error
		cfg.Classes, err = NewClasses(by, "UTC")
		require.NoError(t, err)
	}
	profile, err := BuildProfile(contract, reference, cfg)
	require.NoError(t, err)
	return profile, contract
}

// lived gives the states of so many minutes from a time on, an event in each that is another customer's, and how many events
// were in each class.
func lived(t testing.TB, profile *Profile, contract schemas.Contract, from int64, n int, more float64) (topic stateTopic, classed []uint64) {
	t.Helper()
	a, err := NewAccumulator(profile, contract, minutes, source, nil)
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(2, 2))
	topic, classed = stateTopic{}, make([]uint64, profile.classes())
	for i := range int64(n) {
		at := from + i*minute
		rows := schemas.NewRows(2, 1)
		probability := shifting(random, rows, at, more)
		numbers, categories := rows.Row(0)
		a.Observe(Event{Offset: i, Time: at, Key: fmt.Appendf(nil, "customer %d", i), Numbers: numbers, Categories: categories, Probability: probability})
		if profile.Classes != nil {
			classed[profile.Classes.At(at)]++
		}
		if i%7 == 0 || i == int64(n)-1 {
			require.NoError(t, a.States(topic.put))
			a.Commit()
		}
	}
	return topic, classed
}

func populated(t testing.TB, profile *Profile, topic stateTopic) *Population {
	t.Helper()
	p := newPopulation(t, profile)
	for _, state := range topic.states(t) {
		require.NoError(t, p.Apply(state))
	}
	return p
}

func TestEventsOfClassesSurviveBucketsThatFallFromRingToRing(t *testing.T) {
	profile, contract := shiftingProfile(t, "weekend/3h")
	const days = 5
	topic, classed := lived(t, profile, contract, hour, days*1440, 0)
	require.Contains(t, topic.events(t), at{86400, align(hour+days*1440*minute, 1440*minute) - 2*1440*minute}, "there are days")
	w := longest(populated(t, profile, topic), hour+(days*1440-1)*minute)
	require.EqualValues(t, days*1440, w.Events)
	require.Equal(t, classed, w.Classes[:profile.classes()])
	segments := make([]uint64, profile.classes())
	for s := range profile.segments {
		for class := range segments {
			segments[class] += w.Classes[(1+s)*profile.classes()+class]
		}
	}
	require.Equal(t, classed, segments, "each event has one of the two plans")
}

func TestAWindowIsComparedWithTheReferenceOfItsHours(t *testing.T) {
	night := align(hour, 1440*minute) + 1440*minute // midnight
	of := func(by string, from int64, n int, more float64) Finding {
		profile, contract := shiftingProfile(t, by)
		topic, _ := lived(t, profile, contract, from, n, more)
		return populated(t, profile, topic).Evaluate(from+int64(n-1)*minute, nil).Findings[0]
	}
	const sixHours = 360
	whole := of("", night, sixHours, 0)
	require.Equal(t, StateDrifting, whole.State, "the nights are others than the whole")
	classed := of("4h", night, sixHours, 0)
	require.Equal(t, StateOK, classed.State)
	require.Less(t, classed.Judgement().PSI, 0.08)
	require.Greater(t, whole.Judgement().PSI, 0.25)
	require.Equal(t, StateDrifting, of("4h", night, sixHours, 1.5).State, "days at night")
	require.Equal(t, StateDrifting, of("4h", night+8*60*minute, sixHours, -1.5).State, "nights by day")

	// A day has all hours; a day without its night is not taken for one.
	require.Equal(t, StateOK, of("4h", night, 1440, 0).State)
	require.Equal(t, StateOK, of("4h", night+8*60*minute, 720, 0).State)
}

func TestExpectedSharesAreThoseOfTheClassesByTheirEvents(t *testing.T) {
	profile, _ := shiftingProfile(t, "12h")
	w := profile.newWindow(time.Hour, 0)
	w.Events = 400
	w.Classes[0], w.Classes[1] = 100, 300
	f := &profile.Features[0]
	first, second := AppendShares(nil, f.ByClass[0]), AppendShares(nil, f.ByClass[1])
	e := profile.expect(0, w)
	for place, share := range e.Shares {
		require.InDelta(t, 0.25*first[place]+0.75*second[place], share, 1e-15)
	}
	require.InDelta(t, 1, floats(e.Shares), 1e-12)
	m := float64(14 * 1440)
	require.InDelta(t, 1/(0.0625/m+0.5625/m), e.Customers, 1e-6)
	require.InDelta(t, e.Customers, float64(sum(e.Counts)), 10)

	// Events without a class are compared with the whole, and where there are only those nothing differs.
	w.Classes[1] = 0
	e = profile.expect(0, w)
	for place, share := range e.Shares {
		require.InDelta(t, 0.25*first[place]+0.75*f.Shares[place], share, 1e-15)
	}
	w.Classes[0] = 0
	require.InDeltaSlice(t, f.Shares, profile.expect(0, w).Shares, 1e-15)
	require.InDelta(t, profile.Customers(f), profile.expect(0, w).Customers, 1e-6)

	// A segment goes by its own events.
	last := len(profile.Features) - 1
	w.Counts[profile.Features[last].first] = 50
	w.Classes[2*2+1] = 50
	require.InDeltaSlice(t, profile.Features[last].classes[1].Shares, profile.expect(last, w).Shares, 1e-15)
}

func floats(all []float64) (sum float64) {
	for _, v := range all {
		sum += v
	}
	return sum
}

func TestAClassOfFewRowsIsAnInsufficientReferenceOfItsOwnHoursOnly(t *testing.T) {
	profile, contract := shiftingProfile(t, "weekdays/2h") // 480 rows a class; thirteen places want 2,400
	night := align(hour, 1440*minute) + 1440*minute
	topic, _ := lived(t, profile, contract, night, 1440, 0)
	population := populated(t, profile, topic)
	e := population.Evaluate(night+1439*minute, nil)
	require.Equal(t, StateInsufficientReference, e.Findings[0].Judgements[2].State, "six hours rest on three classes")
	require.Equal(t, StateOK, e.Findings[0].Judgements[3].State, "a day on twelve")
	thin := profile.ThinClasses()
	require.Len(t, thin, 84)
	require.Equal(t, ThinClass{Label: "Mon 00-02h", Events: 480, Features: 5}, thin[0], "even the plan of four places wants 600")
	coarse, _ := shiftingProfile(t, "12h")
	require.Empty(t, coarse.ThinClasses())
}

func TestProfileWithClassesReadsBackWhatItWrote(t *testing.T) {
	profile, _ := shiftingProfile(t, "weekend/6h")
	var file bytes.Buffer
	require.NoError(t, WriteProfile(&file, profile))
	text := file.String()
	again, err := ReadProfile(&file)
	require.NoError(t, err)
	require.Equal(t, profile.Classes, again.Classes)
	require.Equal(t, profile.ClassEvents, again.ClassEvents)
	require.EqualValues(t, 28*1440, sum(again.ClassEvents))
	for i := range profile.Features {
		require.Equal(t, profile.Features[i].ByClass, again.Features[i].ByClass)
		require.Equal(t, profile.Features[i].classes, again.Features[i].classes)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"by": "weekend/6h"`, `"by": "5h"`, "not a division of time"},
		{`"zone": "UTC"`, `"zone": "Local"`, "time zone"},
		{`"by": "weekend/6h"`, `"by": "6h"`, "events of 8, there are 4"},
		{`"by": "weekend/6h"`, `"by": "weekend/6h", "step": 1`, "step"},
		{`"classes": {`, `"clases": {`, "clases"},
		{fmt.Sprintf("   %d,\n", profile.ClassEvents[0]), "   99999999,\n", "more than the profile's"},
		{fmt.Sprintf("   %d,\n", profile.ClassEvents[0]), "   1,\n", "not to the 1 events of the class"},
		{fmt.Sprintf("    %d,\n", profile.Features[0].ByClass[0][1]), "    9999999,\n", "more than the"},
	} {
		require.Contains(t, text, c.old)
		_, err := ReadProfile(strings.NewReader(strings.Replace(text, c.old, c.new, 1)))
		require.ErrorContains(t, err, c.want, c.new)
	}
	many := strings.Replace(text, `"classes": [`, `"classes": [`+strings.Repeat("[],", 600), 1)
	_, err = ReadProfile(strings.NewReader(many))
	require.ErrorContains(t, err, "classes: more than 512")
}

func TestClassesWantTimesAndRoomForTheirCounts(t *testing.T) {
	contract := telco()
	rows, probabilities := customers(contract, 100, 1)
	cfg := DefaultProfileConfig()
	var err error
	cfg.Classes, err = NewClasses("weekdays/1h", "UTC")
	require.NoError(t, err)
	reference := Reference{Rows: rows, Probabilities: probabilities}
	_, err = BuildProfile(contract, reference, cfg)
	require.ErrorContains(t, err, "no row of the reference population has a time")
	reference.Times = []int64{1}
	_, err = BuildProfile(contract, reference, cfg)
	require.ErrorContains(t, err, "1 times for 100 rows")
	reference.Times = make([]int64, 100)
	reference.Times[3] = hour
	profile, err := BuildProfile(contract, reference, cfg)
	require.NoError(t, err)
	require.EqualValues(t, 1, sum(profile.ClassEvents), "rows without a time are in no class")
	cfg.Segments = []string{"category_1"}
	_, err = BuildProfile(contract, reference, cfg)
	require.ErrorContains(t, err, "divide time less finely or name fewer segments")
}

func TestStatesOfOtherClassesAreRefused(t *testing.T) {
	classed, contract := shiftingProfile(t, "weekend")
	plain, _ := shiftingProfile(t, "")
	with, _ := lived(t, classed, contract, hour, 3, 0)
	without, _ := lived(t, plain, contract, hour, 3, 0)
	require.ErrorContains(t, newPopulation(t, classed).Apply(without.states(t)[0]), "events of 0 classes of time")
	require.ErrorContains(t, newPopulation(t, plain).Apply(with.states(t)[0]), "the profile has 0")
	wrong := with.states(t)[0]
	wrong.ClassEvents[0]++
	wrong.ClassEvents[1]++
	require.ErrorContains(t, newPopulation(t, classed).Apply(wrong), "the classes of time count")
	wrong = with.states(t)[0]
	wrong.ClassEvents[2]++
	require.ErrorContains(t, newPopulation(t, classed).Apply(wrong), "its classes of time")
}

func TestReferenceRatiosAreThoseOfTheEvaluatedHour(t *testing.T) {
	profile, contract := shiftingProfile(t, "12h")
	registry := prometheus.NewPedanticRegistry()
	m, err := NewMetrics(registry, profile, minutes.Horizons)
	require.NoError(t, err)
	ratios := func() (all []float64) {
		families, err := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return gatherFeature(registry, "usage") }).Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "churnstream_reference_bin_ratio" {
				for _, series := range f.GetMetric() {
					all = append(all, series.GetGauge().GetValue())
				}
			}
		}
		return all
	}
	require.Len(t, ratios(), len(profile.Features[0].Labels))
	require.True(t, math.IsNaN(floats(ratios())), "nobody has looked yet which hour it is")
	night := align(hour, 1440*minute) + 1440*minute
	topic, _ := lived(t, profile, contract, night-60*minute, 180, 0) // an hour of the day before, two of the night
	population := populated(t, profile, topic)
	alarms, err := NewAlarms(population, model, DefaultAlarmConfig())
	require.NoError(t, err)
	m.Report(population.Evaluate(night+119*minute, nil), alarms)
	require.ElementsMatch(t, profile.Features[0].classes[0].Shares, ratios())
	m.Forget()
	require.True(t, math.IsNaN(floats(ratios())))
	n, err := testutil.GatherAndCount(registry, "churnstream_reference_bin_ratio")
	require.NoError(t, err)
	require.Equal(t, profile.Places(), n)
}
