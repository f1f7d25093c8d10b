// Package deploy_test takes the files that run churnstream beside other systems
// and fails where they do not fit together: the compose project, the mounted
// files, the worker's configuration and the dashboard.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"github.com/churnstream/churnstream/internal/config"
)

const root = ".."

func TestComposeProjectIsWhole(t *testing.T) {
	p := project(t)
	for _, service := range []string{"kafka", "registry", "prepare", "train", "worker", "events", "prometheus", "alertmanager", "grafana"} {
		if _, err := p.GetService(service); err != nil {
			t.Errorf("%v; there are %v", err, p.ServiceNames())
		}
	}
	for name, s := range p.Services {
		if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" {
			t.Errorf("%s: image %q has no pinned tag", name, s.Image)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to other machines", name, port.Published)
			}
		}
	}
}

func TestComposeMountsOnlyWhatExists(t *testing.T) {
	mounts := 0
	for name, s := range project(t).Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			mounts++
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
			if !v.ReadOnly {
				t.Errorf("%s may write into the repository: %s", name, v.Source)
			}
		}
		if s.Build != nil {
			if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if mounts == 0 {
		t.Error("nothing is mounted: this test looks at nothing")
	}
}

// A dependency on health is only as good as the health check, and a dependency
// on an end only as good as the service's ending.
func TestComposeDependenciesCanBeMet(t *testing.T) {
	p := project(t)
	for name, s := range p.Services {
		for on, d := range s.DependsOn {
			service := p.Services[on]
			switch d.Condition {
			case types.ServiceConditionHealthy:
				if service.HealthCheck == nil || service.HealthCheck.Disable {
					t.Errorf("%s waits for the health of %s, which has no check", name, on)
				}
			case types.ServiceConditionCompletedSuccessfully:
				if service.Restart != "" && service.Restart != "no" {
					t.Errorf("%s waits for the end of %s, which restarts", name, on)
				}
			default:
				t.Errorf("%s starts with %s, ready or not: %s", name, on, d.Condition)
			}
		}
	}
}

func TestComposeWorkerConfigurationFitsTheProject(t *testing.T) {
	p := project(t)
	worker := p.Services["worker"]
	path := source(t, worker, "/etc/churnstream/churnstream.yaml")
	cfg, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range append(slices.Clone(cfg.Brokers), cfg.Registry.URLs...) {
		host := regexp.MustCompile(`^(https?://)?([^:/]+)`).FindStringSubmatch(address)[2]
		if _, ok := p.Services[host]; !ok {
			t.Errorf("the worker dials %s, and no service is called %s", address, host)
		}
		if _, ok := worker.DependsOn[host]; !ok {
			t.Errorf("the worker dials %s without waiting for it", host)
		}
	}
	if mount(worker, cfg.Model) == nil {
		t.Errorf("the model %s is on no volume of the worker", cfg.Model)
	}
	if strings.HasPrefix(cfg.Admin.Listen, "127.") {
		t.Errorf("admin.listen %s: Prometheus could not reach it", cfg.Admin.Listen)
	}
	if train := p.Services["train"]; !slices.Contains(train.Command, "--output="+cfg.Model) {
		t.Errorf("train writes elsewhere than to %s: %q", cfg.Model, train.Command)
	}
}

func TestPrometheusScrapesTheWorkerAndReachesAlertmanager(t *testing.T) {
	p := project(t)
	prometheus := p.Services["prometheus"]
	path := source(t, prometheus, "/etc/prometheus/prometheus.yml")
	var cfg struct {
		RuleFiles []string `yaml:"rule_files"`
		Alerting  struct {
			Alertmanagers []discovery `yaml:"alertmanagers"`
		} `yaml:"alerting"`
		ScrapeConfigs []discovery `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(read(t, path), &cfg); err != nil {
		t.Fatal(err)
	}
	for _, name := range cfg.RuleFiles {
		if mount(prometheus, filepath.Join("/etc/prometheus", name)) == nil {
			t.Errorf("the rules %s are not mounted", name)
		}
	}
	if len(cfg.RuleFiles) == 0 {
		t.Error("no rules are loaded")
	}
	scraped := targets(t, p, cfg.ScrapeConfigs)
	worker, err := config.Load(source(t, p.Services["worker"], "/etc/churnstream/churnstream.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(worker.Admin.Listen)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(scraped, "worker:"+port) {
		t.Errorf("scraped are %v, not the worker's admin port %s", scraped, port)
	}
	if alerted := targets(t, p, cfg.Alerting.Alertmanagers); !slices.Contains(alerted, "alertmanager:9093") {
		t.Errorf("alerts go to %v", alerted)
	}
}

// discovery is the part of a Prometheus scrape or alerting configuration that
// says where to go.
type discovery struct {
	Static []struct {
		Targets []string `yaml:"targets"`
	} `yaml:"static_configs"`
	DNS []struct {
		Names []string `yaml:"names"`
		Port  int      `yaml:"port"`
	} `yaml:"dns_sd_configs"`
}

// targets are the addresses asked for; each must be a service of the project or
// the asker itself.
func targets(t *testing.T, p *types.Project, from []discovery) []string {
	t.Helper()
	var all []string
	for _, d := range from {
		for _, s := range d.Static {
			all = append(all, s.Targets...)
		}
		for _, s := range d.DNS {
			for _, name := range s.Names {
				all = append(all, net.JoinHostPort(name, strconv.Itoa(s.Port)))
			}
		}
	}
	for _, address := range all {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.Services[host]; !ok && host != "127.0.0.1" && host != "localhost" {
			t.Errorf("%s is no service of the project", address)
		}
	}
	return all
}

func TestGrafanaFindsItsDashboardAndDataSource(t *testing.T) {
	grafana := project(t).Services["grafana"]
	dashboards := source(t, grafana, "/var/lib/grafana/dashboards")
	home := grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	if home == nil {
		t.Fatal("no home dashboard")
	}
	var dashboard struct {
		UID    string `json:"uid"`
		Panels []struct {
			ID      int        `json:"id"`
			Title   string     `json:"title"`
			Source  dataSource `json:"datasource"`
			Targets []struct {
				Expr   string     `json:"expr"`
				Source dataSource `json:"datasource"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(read(t, filepath.Join(dashboards, filepath.Base(*home))), &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.UID == "" || len(dashboard.Panels) == 0 {
		t.Fatalf("uid %q, %d panels", dashboard.UID, len(dashboard.Panels))
	}
	provisioned := read(t, filepath.Join(source(t, grafana, "/etc/grafana/provisioning"), "datasources", "prometheus.yaml"))
	known := sources(t)
	ids := map[int]bool{}
	for _, panel := range dashboard.Panels {
		if ids[panel.ID] {
			t.Errorf("panel %q: id %d is taken", panel.Title, panel.ID)
		}
		ids[panel.ID] = true
		if len(panel.Targets) == 0 {
			t.Errorf("panel %q asks nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			if !bytes.Contains(provisioned, []byte("uid: "+target.Source.UID+"\n")) || target.Source != panel.Source {
				t.Errorf("panel %q: data source %+v is not the provisioned one", panel.Title, target.Source)
			}
			metrics := regexp.MustCompile(`churnstream_[a-z_]+`).FindAllString(target.Expr, -1)
			if len(metrics) == 0 {
				t.Errorf("panel %q: no metric of ours in %s", panel.Title, target.Expr)
			}
			for _, metric := range metrics {
				if !defined(known, metric) {
					t.Errorf("panel %q: no code defines the metric %s", panel.Title, metric)
				}
			}
		}
	}
}

type dataSource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// defined says whether the sources name the metric, in one string or as
// namespace, subsystem and name.
func defined(sources, metric string) bool {
	metric = strings.TrimSuffix(metric, "_bucket")
	if strings.Contains(sources, `"`+metric+`"`) {
		return true
	}
	name := strings.TrimPrefix(metric, "churnstream_")
	if strings.Contains(sources, `"`+name+`"`) {
		return true
	}
	subsystem, name, ok := strings.Cut(name, "_")
	return ok && strings.Contains(sources, `"`+subsystem+`"`) && strings.Contains(sources, `"`+name+`"`)
}

// sources is the text of every metrics.go.
func sources(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "metrics.go" {
			text.Write(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func project(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")}, cli.WithWorkingDirectory(root))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// source is the file or folder of the repository behind a path in a service.
func source(t *testing.T, s types.ServiceConfig, target string) string {
	t.Helper()
	v := mount(s, target)
	if v == nil || v.Type != types.VolumeTypeBind {
		t.Fatalf("%s mounts nothing of the repository at %s", s.Name, target)
	}
	return v.Source
}

func mount(s types.ServiceConfig, path string) *types.ServiceVolumeConfig {
	for i, v := range s.Volumes {
		if path == v.Target || strings.HasPrefix(path, v.Target+"/") {
			return &s.Volumes[i]
		}
	}
	return nil
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
