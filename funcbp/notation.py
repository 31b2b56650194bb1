"""The letters of the backpropagation texts, and what they are here. Every claim is an example that runs.

>>> import jax
>>> from jax import numpy as jnp
>>> from funcbp import backprop, layers, rules
>>> def same(a, b): return a.shape == b.shape and bool((a == b).all())

**Rows and columns.** Texts write an example as a column, this library as a row: each is the other's
transpose.

    in the texts                             here
    ---------------------------------------  ---------------------------------------------------
    q: (in, n), p: (out, n), W: (out, in)    q: (n, in), p: (n, out), W: (in, out)
    p = W q + b 1ᵀ, q = σ(p)                 p = q W + b, q = σ(p)
    ∂C/∂W = δ qᵀ, ∂C/∂b = δ 1                ∂C/∂W = qᵀ δ, ∂C/∂b = the sum of δ's rows
    ∂C/∂q = Wᵀ δ                             ∂C/∂q = δ Wᵀ
    W_ij takes layer i to layer j; in it,    w[b, a] takes node b to node a
    w_ab takes node b to node a

>>> X = jnp.array([[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [0.0, 1.0, 1.0], [2.0, 1.0, 5.0]])  # n = 4, in = 3
>>> W = jnp.array([[1.0, -1.0], [0.0, 2.0], [2.0, 1.0]])  # out = 2
>>> Y = -jnp.ones((4, 2))
>>> linear = layers.dense(2, bias=False)
>>> out = backprop(linear, rules.l2_loss, collect=("deltas",))({"w": W}, X, Y)
>>> same(out.grads["w"], X.T @ out.deltas), same(out.grads["w"].T, out.deltas.T @ X)
(True, True)

**p, q and σ′.** p is before the activation, q = σ(p) behind it. σ′ always means dσ/dp at p. Where it is
written in q, as q(1 - q) for the logistic function, it is still the slope at p, had from what is saved.
The slope at q is another number.

>>> q, saved = rules.sigmoid.fwd(jnp.array(0.0))
>>> rules.sigmoid.saves, float(q), float(rules.sigmoid.bwd(saved, jnp.array(1.0))[0])
('q', 0.5, 0.25)
>>> round(float(jax.grad(jax.nn.sigmoid)(q)), 3)  # σ′(q)
0.235

**δ and Δ.** δ = ∂C/∂p, with the prefactor of C in it: `deltas`. Some texts start from the error ŷ - y,
which has no σ′ yet: those are the output's `cotangents`. Δ holds the δ's of a batch as columns; here they
are the rows of one array, and a single example is a batch of one.

>>> def one(number): return jnp.array([[number]])
>>> unit = layers.chain(p=layers.dense(1, bias=False), q=layers.activation("square"))
>>> sweep = backprop(unit, rules.l2_loss, collect=("cotangents", "deltas"))
>>> out = sweep({"p": {"w": one(3.0)}, "q": ()}, one(1.0), one(8.0))
>>> float(out.cotangents["q"][0, 0]), float(out.deltas["p"][0, 0])  # q - y = 9 - 8, and times σ′(3) = 6
(1.0, 6.0)

Texts number δ₀, δ₁, … from the output. Here a δ has the name or place of the layer whose p it belongs to,
and the last one, ∂C/∂x₀, is `x_ct`.

>>> line = layers.chain(**{name: layers.dense(1, bias=False) for name in ("w01", "w12", "w23")})
>>> weights = {"w01": {"w": one(2.0)}, "w12": {"w": one(3.0)}, "w23": {"w": one(5.0)}}
>>> out = backprop(line, rules.l2_loss, collect=("deltas",))(weights, one(1.0), one(29.0))
>>> {name: float(delta[0, 0]) for name, delta in out.deltas.items()}, float(out.x_ct[0, 0])
({'w01': 15.0, 'w12': 5.0, 'w23': 1.0}, 30.0)

**½, 1/n, 1/2n.** The ½ is in the loss, the 1/n in the reduction: a mean over examples, not over outputs.

    cost                  loss, reduction          ∂C/∂ŷ
    --------------------  -----------------------  -------------
    1/2n Σ ‖ŷ - y‖²       l2_loss, "mean"          (ŷ - y) / n
    1/n Σ ‖ŷ - y‖²        squared_error, "mean"    2 (ŷ - y) / n
    ½ Σ ‖ŷ - y‖²          l2_loss, "sum"           ŷ - y
    Σ ‖ŷ - y‖²            squared_error, "sum"     2 (ŷ - y)

>>> def prefactor(loss, reduction):
...     sweep = backprop(linear, loss, reduction=reduction, collect=("deltas",))
...     return float((sweep({"w": W}, X, Y).deltas / (X @ W - Y)).max())
>>> [prefactor(loss, r) for r in ("mean", "sum") for loss in (rules.l2_loss, rules.squared_error)]
[0.25, 0.5, 1.0, 2.0]

**Is Xᵀ the Jacobian of ŷ = Xw?** Say in which layout. With a row for each output (numerator layout, as
`jax.jacrev`) the Jacobian is X; with a column for each (denominator layout) it is Xᵀ. The gradient is Xᵀ
times ∂C/∂ŷ in both: Xᵀ(Xw - y)/n for the cost 1/2n, and not Xᵀ(y - Xw)/n, with which descent climbs.

>>> jacobian = jax.jacrev(lambda w: rules.dense(X, w))(W[:, :1])[:, 0, :, 0]
>>> same(jacobian, X), jacobian.T.shape
(True, (3, 4))
>>> residuals, error = rules.dense.fwd(X, W)[1], X @ W - Y
>>> same(rules.dense.bwd(residuals, error)[1], X.T @ error)
True

**Is it a 3-D tensor for a matrix W?** It has three indices for one example and four for a batch; the
gradient of the cost has two, as W. It is written by indices, X_ac δ_bd; or by ⊗, once it is said how vec
stacks; or avoided.

>>> tensor, I = jax.jacrev(lambda w: rules.dense(X, w))(W), jnp.eye(2)
>>> tensor.shape, jax.jacrev(lambda w: rules.dense(X[0], w))(W).shape
((4, 2, 3, 2), (2, 3, 2))
>>> same(tensor, jnp.einsum("ac,bd->abcd", X, I))
True
>>> by_rows = tensor.reshape(8, 6)  # vec as jnp.ravel
>>> by_columns = tensor.transpose(1, 0, 3, 2).reshape(8, 6)  # vec as in the texts
>>> same(by_rows, jnp.kron(X, I)), same(by_columns, jnp.kron(I, X)), same(by_rows, jnp.kron(I, X))
(True, True, False)

**Can a vector be differentiated by a matrix?** Yes, that was the three indices. Differentials do without
them: dŶ = X dW has the shape of Ŷ, and dC = δ : dŶ = δ : X dW = (Xᵀδ) : dW, where A : B = tr AᵀB. What
stands before dW is the gradient.

>>> dW = jnp.array([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0]])
>>> dY = jax.jvp(lambda w: rules.dense.primal(X, w), (W,), (dW,))[1]
>>> same(dY, X @ dW), float((error * dY).sum()) == float((X.T @ error * dW).sum())
(True, True)

**Is ∂q/∂p a matrix?** Yes: Diag(σ′) for an elementwise σ, so that it times δ is σ′ ⊙ δ; full for softmax.

>>> jax.jacrev(rules.square)(jnp.array([1.0, 3.0])).tolist()
[[2.0, 0.0], [0.0, 6.0]]
>>> jax.jacrev(rules.softmax)(jnp.zeros(2)).tolist()  # Diag(q) - q qᵀ
[[0.25, -0.25], [-0.25, 0.25]]

**What is g′ of g(t) = f(x₁(t), x₂(t))?** ∂f/∂x₁ x₁′ + ∂f/∂x₂ x₂′. Here f = ½(x₁ - x₂)²,
x₁ = t², x₂ = 3t, t = 2:

>>> float(jax.grad(lambda t: rules.l2_loss(t**2, 3 * t))(2.0)), (4 - 6) * 4 + (6 - 4) * 3
(-2.0, -2)

**Overloaded letters.**

    δ   ∂C/∂p: `deltas`. The error ŷ - y: `cotangents`. Kronecker's δ_ij: the identity matrix. In δC/δA: the
        gradient, an array like A.
    n   number of examples, of inputs, or of outputs: here `batch`, `in` and `out`.
    D   whatever product was just abbreviated (AᵀA, W₂₃W₁₂, W₁₂W₀₁ in one text); Diag(v) is another thing.
    ′   the derivative in σ′; but also a renamed vector (x′ = B x), or a cost without its constant (C′).
    q₀  σ₀ of the raw input, where a text has a σ₀; else the input x₀ itself, as here.
"""
