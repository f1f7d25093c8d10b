package onnx

import "math"

// ONNX Runtime computes exp and the logistic function by polynomials, and products of matrices with
// fused multiplications, some columns at a time. To come within a unit of the last place of its
// results, the same is done here; the constants are those of onnxruntime/core/mlas/lib (MIT) and of Cephes.

// fused is x·y + z as float32, rounded once.
func fused(x, y, z float32) float32 { return float32(float64(x)*float64(y) + float64(z)) }

// exponential is ComputeExpF32Kernel of MLAS.
func exponential(x float32) float32 {
	if x != x {
		return x
	}
	return power2(max(-103.9720840454, min(88.7762626647950, x)))
}

func power2(x float32) float32 {
	const bias = 1.5 * (1 << 23) // adding it rounds to an integer
	m := fused(x, 1.44269504088896341, bias) - bias
	x = fused(m, -6.93145752e-1, x)
	x = fused(m, -1.42860677e-6, x)
	p := float32(0x1.694000p-10)
	for _, c := range [...]float32{0x1.125edcp-7, 0x1.555b5ap-5, 0x1.555450p-3, 0x1.fffff6p-2, 1, 1} {
		p = fused(p, x, c)
	}
	return float32(math.Ldexp(float64(p), int(m)))
}

// logistics is LogisticKernel of MLAS on every step-th number of a list, four side by side: each waits for its own
// polynomials only.
func logistics(list []float64, step int) {
	for ; len(list) > 3*step; list = list[min(4*step, len(list)):] {
		w, x, y, z := clamped(list[0]), clamped(list[step]), clamped(list[2*step]), clamped(list[3*step])
		list[0], list[step], list[2*step], list[3*step] = logistics4(w, x, y, z)
	}
	for at := 0; at < len(list); at += step {
		list[at], _, _, _ = logistics4(clamped(list[at]), 0, 0, 0)
	}
}

// clamped leaves NaN as it is.
func clamped(x float64) float64 {
	if x > 18 {
		return 18
	} else if x < -18 {
		return -18
	}
	return x
}

func logistics4(w, x, y, z float64) (float64, float64, float64, float64) {
	i, j, k, l := narrow(w*w), narrow(x*x), narrow(y*y), narrow(z*z)
	const p5, q6 = float32(4.37031012579801e-11), float32(6.10247389755681e-13)
	a, b, c, d := float64(p5), float64(p5), float64(p5), float64(p5)
	e, f, g, h := float64(q6), float64(q6), float64(q6), float64(q6)
	const p4, q5 = float32(1.15627324459942e-07), float32(5.76102136993427e-09)
	a, b, c, d = narrow(a*i+float64(p4)), narrow(b*j+float64(p4)), narrow(c*k+float64(p4)), narrow(d*l+float64(p4))
	e, f, g, h = narrow(e*i+float64(q5)), narrow(f*j+float64(q5)), narrow(g*k+float64(q5)), narrow(h*l+float64(q5))
	const p3, q4 = float32(6.08574864600143e-05), float32(6.29106785017040e-06)
	a, b, c, d = narrow(a*i+float64(p3)), narrow(b*j+float64(p3)), narrow(c*k+float64(p3)), narrow(d*l+float64(p3))
	e, f, g, h = narrow(e*i+float64(q4)), narrow(f*j+float64(q4)), narrow(g*k+float64(q4)), narrow(h*l+float64(q4))
	const p2, q3 = float32(8.51377133304701e-03), float32(1.70198817374094e-03)
	a, b, c, d = narrow(a*i+float64(p2)), narrow(b*j+float64(p2)), narrow(c*k+float64(p2)), narrow(d*l+float64(p2))
	e, f, g, h = narrow(e*i+float64(q3)), narrow(f*j+float64(q3)), narrow(g*k+float64(q3)), narrow(h*l+float64(q3))
	const p1, q2 = float32(2.48287947061529e-01), float32(1.16817656904453e-01)
	a, b, c, d = narrow(a*i+float64(p1)), narrow(b*j+float64(p1)), narrow(c*k+float64(p1)), narrow(d*l+float64(p1))
	e, f, g, h = narrow(e*i+float64(q2)), narrow(f*j+float64(q2)), narrow(g*k+float64(q2)), narrow(h*l+float64(q2))
	const q1 = float32(9.93151921023180e-01)
	e, f, g, h = narrow(e*i+float64(q1)), narrow(f*j+float64(q1)), narrow(g*k+float64(q1)), narrow(h*l+float64(q1))
	return half(a*w, e), half(b*x, f), half(c*y, g), half(d*z, h)
}

// narrow rounds to float32.
func narrow(x float64) float64 { return float64(float32(x)) }

// half is p/q + 1/2, no more than 1 and no less than 0.
func half(p, q float64) float64 {
	switch y := float32(p)/float32(q) + 0.5; {
	case y > 1:
		return 1
	case y < 0:
		return 0
	default:
		return float64(y)
	}
}

// tangent is TanhKernel of MLAS.
func tangent(x float32) float32 {
	if x != x {
		return x
	}
	x = max(-9, min(9, x))
	square := x * x
	p := fused(square, -2.76076847742355e-16, 2.00018790482477e-13)
	for _, c := range [...]float32{-8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03} {
		p = fused(p, square, c)
	}
	q := fused(square, 1.19825839466702e-06, 1.18534705686654e-04)
	q = fused(q, square, 2.26843463243900e-03)
	q = fused(q, square, 4.89352518554385e-03)
	return float32(p*x) / q
}

// expf is that of glibc and of Arm's optimized routines (MIT), which differs from the nearest float32 for a few
// arguments of a thousand: 2^(x·32/ln 2 / 32) by 32 powers and a polynomial.
func expf(x float32) float32 {
	const n = 32
	scaled := float64(x) * (0x1.71547652b82fep+0 * n)
	if x != x || x > 88.8 || x < -104 {
		return float32(math.Exp(float64(x)))
	}
	k := math.RoundToEven(scaled)
	r := scaled - k
	p := (0x1.c6af84b912394p-5/n/n/n*r+0x1.ebfce50fac4f3p-3/n/n)*(r*r) + (0x1.62e42ff0c52d6p-1/n*r + 1)
	return float32(p * math.Exp2(k/n))
}

// exactLogistic is ComputeLogistic of the operators of ai.onnx.ml, by the C library's expf.
func exactLogistic(x float32) float32 {
	v := 1 / (1 + expf(-float32(math.Abs(float64(x)))))
	if x < 0 {
		return 1 - v
	}
	return v
}

func exactLogistics(list []float64, step int) {
	for i := 0; i < len(list); i += step {
		list[i] = float64(exactLogistic(float32(list[i])))
	}
}

// softmax is MlasComputeSoftmax over numbers that are float32.
func softmax(x, out []float64) {
	largest := float32(-math.MaxFloat32)
	for _, v := range x {
		largest = max(largest, float32(v))
	}
	sum := float32(0)
	for i, v := range x {
		e := float32(v) - largest
		e = exponential(e)
		out[i] = float64(e)
		sum += e
	}
	scale := 1 / sum
	for i := range out {
		out[i] = float64(float32(out[i]) * scale)
	}
}

// powerf is x to the power of y as Eigen has it for arrays: small whole powers by squares.
func powerf(x, y float32) float32 {
	if y != float32(math.Trunc(float64(y))) || y < 1 || y > 7 {
		return float32(math.Pow(float64(x), float64(y)))
	}
	out, n := float32(1), int(y)
	for ; n > 1; n /= 2 {
		if n%2 == 1 {
			out *= x
		}
		x *= x
	}
	return out * x
}

// strideOf is how many of the width products of a number are summed before the sum joins those before it, by the
// columns of the result: MLAS shares out what its buffer holds.
func strideOf(columns, width int) int {
	stride, others := 128, 128
	for columns < width && others > 16 && others/2 >= columns {
		stride, others = stride*2, others/2
	}
	return stride
}

// dot32 adds scale·Σ a[i]·b[i] to c, stride products at a time; the elements are float32 numbers.
func dot32(a, b []float64, stride int, scale, c float32) float32 {
	for from := 0; from < len(b); from += stride {
		sum := float32(0)
		for i := from; i < min(from+stride, len(b)); i++ {
			sum = fused(float32(a[i]), float32(b[i]), sum)
		}
		c = fused(sum, scale, c)
	}
	return c
}

// dots32 does so for four rows that stand behind each other, side by side: each waits for its own sums only.
func dots32(rows, b []float64, stride int, c float32) (w, x, y, z float32) {
	w, x, y, z = c, c, c, c
	width := len(b)
	for from := 0; from < width; from += stride {
		b := b[from:min(from+stride, width)]
		p, q := rows[from:][:len(b)], rows[width+from:][:len(b)]
		r, s := rows[2*width+from:][:len(b)], rows[3*width+from:][:len(b)]
		var i, j, k, l float32
		for at, v := range b {
			i = float32(p[at]*v + float64(i))
			j = float32(q[at]*v + float64(j))
			k = float32(r[at]*v + float64(k))
			l = float32(s[at]*v + float64(l))
		}
		w, x, y, z = w+i, x+j, y+k, z+l
	}
	return w, x, y, z
}

// dot64 adds Σ a[i]·b[i] to c.
func dot64(a, b []float64, c float64) float64 {
	sum := 0.0
	for i, x := range a {
		sum = math.FMA(x, b[i], sum)
	}
	return c + sum
}

// logarithm is plog of the Eigen in ONNX Runtime 1.31: a quotient of polynomials, without fused operations.
func logarithm(x float32) float32 {
	if !(x > 0) || math.IsInf(float64(x), 0) {
		return float32(math.Log(float64(x)))
	}
	fraction, exponent := math.Frexp(float64(x))
	e := float32(exponent)
	if x = float32(fraction); x < 0.707106781186547524 {
		e--
		x = x - 1 + x
	} else {
		x--
	}
	p := float32(x*0.18256296349849254) + 1.0000000190281063
	p = float32(x*p) + 1.0000000190281136
	q := float32(x*0.049616247954120038) + 0.59923249590823520
	q = float32(x*q) + 1.4999999999999927
	q = float32(x*q) + 1
	return float32(e*0.693147180559945) + float32(x*p)/q
}
