package scoring

import "math"

// normalQuantile returns x for which a standard normal variable is below x with probability p, from
// 1e-14 to 1 - 1e-14. It is the rational approximation of the Cephes library (S. L. Moshier, ndtri),
// evaluated in the order that scipy evaluates it: a step after this one may ask whether two values
// are equal, where another approximation of the same precision says no.
func normalQuantile(p float64) float64 {
	const (
		tail     = 0.13533528323661269189 // exp(-2)
		rootOf2π = 2.50662827463100050242
	)
	y, upper := p, false
	if y > 1-tail {
		y, upper = 1-y, true
	}
	if y > tail {
		w := y - 0.5
		w2 := float64(w * w)
		ratio := polynomial(w2,
			-5.99633501014107895267e1, 9.80010754185999661536e1, -5.66762857469070293439e1, 1.39312609387279679503e1,
			-1.23916583867381258016e0,
		) / polynomial(w2,
			1, 1.95448858338141759834e0, 4.67627912898881538453e0, 8.63602421390890590575e1, -2.25462687854119370527e2,
			2.00260212380060660359e2, -8.20372256168333339912e1, 1.59056225126211695515e1, -1.18331621121330003142e0,
		)
		return float64(w+float64(w*float64(w2*ratio))) * rootOf2π
	}
	x := math.Sqrt(-2 * math.Log(y))
	z := 1 / x
	size := x - math.Log(x)/x - float64(z*polynomial(z,
		4.05544892305962419923e0, 3.15251094599893866154e1, 5.71628192246421288162e1, 4.40805073893200834700e1,
		1.46849561928858024014e1, 2.18663306850790267539e0, -1.40256079171354495875e-1, -3.50424626827848203418e-2,
		-8.57456785154685413611e-4,
	))/polynomial(z,
		1, 1.57799883256466749731e1, 4.53907635128879210584e1, 4.13172038254672030440e1, 1.50425385692907503408e1,
		2.50464946208309415979e0, -1.42182922854787788574e-1, -3.80806407691578277194e-2, -9.33259480895457427372e-4,
	)
	if upper {
		return size
	}
	return -size
}

// polynomial evaluates coefficients of falling powers by Horner's rule.
func polynomial(x float64, coefficients ...float64) float64 {
	sum := coefficients[0]
	for _, c := range coefficients[1:] {
		sum = float64(sum*x) + c
	}
	return sum
}
