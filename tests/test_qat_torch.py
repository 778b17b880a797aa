"""qkernels.torch: as PyTorch's own fake quantization, forward and gradients; as the integer kernels, bit for bit."""

import copy
import doctest
import io
import itertools
import subprocess
import sys

import cases
import numpy as np
import pytest
from cases import raises

import qkernels
from qkernels import ref

torch = pytest.importorskip("torch")
from qkernels.torch import FakeQuantize, QATLinear  # noqa: E402  (needs torch)

RANGES = ref.affine.RANGES
SHAPE = (5, 6, 7)


def sample(dtype, axis, power_of_two):
    """Data with values out of range, scales, and zero points; scales are powers of two, or data lie away from ties."""
    low, high = RANGES[dtype]
    where = () if axis is None else (SHAPE[axis],)
    zero = cases.ints(3, where, max(low, -3), min(high, 5), np.int32)
    exponents = cases.ints(2, where, -6, -3)
    scale = (2.0**exponents if power_of_two else cases.scales(2, where, 0.05)).astype(np.float32)
    steps = cases.ints(4, SHAPE, 2 * low - 4, 2 * high + 4) + cases.ints(5, SHAPE, -2, 2) / 4  # ties among them
    if not power_of_two:
        steps = np.rint(steps) + cases.ints(5, SHAPE, -40, 40) / 100
    spread = ref.affine.spread(scale, SHAPE, axis, None)
    return (steps * spread).astype(np.float32), scale, zero, cases.floats(7, SHAPE)


def gradients(function, *arrays, dy):
    """The output, and the gradients of float arrays."""
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    y = function(*tensors)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors)


def ours(dtype, axis, scale, zero, dy, x, **options):
    """The same of a FakeQuantize that learns both."""
    found = qkernels.QParams(scale, zero, dtype, axis, None)
    quantizer = FakeQuantize.from_qparams(found, learn_zero_point=True, **options)
    x = torch.tensor(x, requires_grad=True)
    y = quantizer(x)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), x.grad.numpy(), quantizer.scale.grad.numpy(), quantizer.zero_point.grad.numpy()


@pytest.mark.parametrize("power_of_two", [True, False], ids=["powers of two", "away from ties"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4", "int2"])
def test_as_torch(isa, dtype, axis, power_of_two):
    x, scale, zero, dy = sample(dtype, axis, power_of_two)
    y, dx, dscale, dzero = ours(dtype, axis, scale, zero, dy, x, grad_factor=0.25)
    bounds, zeros = RANGES[dtype], zero.astype(np.float32)
    if axis is None:
        fixed = gradients(lambda x: torch.fake_quantize_per_tensor_affine(
            x, float(scale), int(zero), *bounds), x, dy=dy)
        learned = gradients(lambda x, s, z: torch._fake_quantize_learnable_per_tensor_affine(x, s, z, *bounds, 0.25),
                            x, scale[None], zeros[None], dy=dy)
    else:
        fixed = gradients(lambda x: torch.fake_quantize_per_channel_affine(
            x, torch.tensor(scale), torch.tensor(zero), axis, *bounds), x, dy=dy)
        learned = gradients(lambda x, s, z: torch._fake_quantize_learnable_per_channel_affine(
            x, s, z, axis, *bounds, 0.25), x, scale, zeros, dy=dy)
    assert 0 < np.count_nonzero(dx) < np.count_nonzero(dy)
    for got, want in zip((y, dx), fixed):
        np.testing.assert_array_equal(got, want)
    if axis is not None and power_of_two:
        return  # at ties the mask of the learnable one is not that of its forward pass: the zero point is added first
    for got, want in zip((y, dx), learned):
        np.testing.assert_array_equal(got, want)
    for got, want in zip((dscale, dzero), learned[2:]):  # torch sums in float32
        size = (bounds[1] - bounds[0]) * np.abs(dy).sum()
        np.testing.assert_allclose(got, want.reshape(scale.shape), rtol=1e-5, atol=1e-7 * size)


def test_a_fixed_quantizer_and_gradients_of_any_layout(isa):
    x, scale, zero, _ = sample("int4", 1, True)
    quantizer = FakeQuantize.from_qparams(qkernels.QParams(scale, zero, "int4", 1, None), learn_scale=False)
    assert not list(quantizer.parameters())
    turned = torch.tensor(x.transpose(2, 1, 0).copy(), requires_grad=True)
    quantizer(turned.permute(2, 1, 0)).sum().backward()  # the gradient is one number with strides of 0
    want = qkernels.qat.fake_quantize_backward(np.ones_like(x), x, scale, zero, dtype="int4", axis=1)
    np.testing.assert_array_equal(turned.grad.numpy(), want.transpose(2, 1, 0))


@pytest.mark.any_isa
def test_first_call_chooses_and_state_is_kept():
    x = torch.tensor(cases.floats(1, (4, 30), 2.0))
    for method, options in (("minmax", {}), ("mse", {"axis": 0, "channels": 4}), ("lsq", {"axis": 0, "channels": 4})):
        quantizer, again = (FakeQuantize("uint4", method=method, symmetric=False, **options) for _ in range(2))
        y = quantizer(x)
        axis = options.get("axis")
        if method == "lsq":
            np.testing.assert_array_equal(quantizer.scale.detach(), qkernels.qat.lsq_scale(x, "uint4", axis=axis))
        else:
            found = qkernels.choose_qparams(x, "uint4", axis=axis, symmetric=False, method=method)
            np.testing.assert_array_equal(quantizer.scale.detach(), found.scale)
            np.testing.assert_array_equal(quantizer.zero_point, found.zero_point)
        quantizer(x * 9)  # chooses no more
        again.load_state_dict(quantizer.state_dict())
        assert again.initialized and torch.equal(again(x), y)


@pytest.mark.any_isa
def test_what_chooses_nothing():
    """An empty batch, and one with another number of channels."""
    for method, wrong in itertools.product(("minmax", "lsq"), (1, 4)):
        quantizer = FakeQuantize(axis=0, channels=3, method=method)
        raises(ValueError, "x", quantizer, torch.ones(wrong, 5))
        assert quantizer(torch.ones(3, 0)).shape == (3, 0) and not quantizer.initialized


@pytest.mark.any_isa
def test_a_learned_scale_stays_positive():
    quantizer = FakeQuantize("int4")
    x = torch.tensor([0.5, -7.0])
    quantizer(x)
    with torch.no_grad():
        quantizer.scale.fill_(-1)
    assert torch.isfinite(quantizer(x)).all() and quantizer.scale == 2.0**-23


@pytest.mark.any_isa
@pytest.mark.parametrize("pushed", [-1.0, 0.0, 2.0**-30])
def test_after_the_last_step_scales_are_as_the_next_call_would_have_them(pushed):
    """An optimizer's step has the last word on scales before a layer is converted."""
    x = torch.tensor(cases.floats(5, (6, 16)))
    for frozen in (False, True):
        layers = [QATLinear.from_float(torch.nn.Linear(16, 8)) for _ in range(2)]
        layers[1].load_state_dict(layers[0].state_dict())
        for layer in layers:
            layer(x)
            with torch.no_grad():
                layer.weight_quantizer.scale[3] = layer.activation_quantizer.scale[...] = pushed
            layer.requires_grad_(not frozen)
        converted, used = layers[0].convert(), layers[1](x)
        assert torch.equal(converted(x), used) and torch.equal(layers[0](x), used)
        assert float(layers[0].weight_quantizer.qparams().scale[3]) == 2.0**-23
    for bad, parameter in [(np.nan, "scale"), (np.inf, "scale"), (-np.inf, "scale"), (np.nan, "zero_point")]:
        quantizer = FakeQuantize("uint8", symmetric=False, learn_zero_point=True)
        quantizer(x)
        getattr(quantizer, parameter).data.fill_(bad)
        for use in (lambda: quantizer(x), quantizer.qparams, lambda: quantizer.quantize(x)):
            raises(ValueError, parameter, use)
    fixed = FakeQuantize("int8", learn_scale=False)
    fixed(x)
    fixed.scale.fill_(-1.0)
    raises(ValueError, "scale", fixed.qparams)


@pytest.mark.any_isa
def test_lsq_grad_factor_is_that_of_the_values_that_share_a_scale():
    x, scale, zero, dy = sample("int4", 1, False)
    by_default, plain = ours("int4", 1, scale, zero, dy, x), ours("int4", 1, scale, zero, dy, x, grad_factor=1.0)
    np.testing.assert_allclose(by_default[2], plain[2] / np.sqrt(5 * 7 * 7), rtol=1e-6)


def layer(weight_dtype, activation_dtype="uint8", bias=True, n=13, k=37):
    linear = torch.nn.Linear(k, n, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(cases.floats(1, (n, k))))
        if bias:
            linear.bias.copy_(torch.tensor(cases.floats(2, (n,))))
    return QATLinear.from_float(linear, weight_dtype=weight_dtype, activation_dtype=activation_dtype)


@pytest.mark.parametrize("activation_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("weight_dtype", ["int8", "int4", "int2"])
def test_linear_is_the_integer_product(isa, weight_dtype, activation_dtype):
    for bias, lead in ((True, (9,)), (False, (2, 3)), (True, ())):
        linear = layer(weight_dtype, activation_dtype, bias)
        x = torch.tensor(cases.floats(3, (*lead, 37), 2.0))
        y = linear(x)
        of_x, of_w = linear.activation_quantizer.qparams(), linear.weight_quantizer.qparams()
        x_q = ref.quantize(x.numpy(), of_x.scale, of_x.zero_point, dtype=activation_dtype)
        w_q = ref.quantize(linear.weight.detach().numpy(), of_w.scale, dtype=weight_dtype, axis=0)
        want = ref.int8_gemm(x_q.reshape(-1, 37), w_q.T, of_x.scale * of_w.scale, a_zero_point=of_x.zero_point,
                             bias=linear.bias.detach().numpy() if bias else None)
        cases.assert_same(y.detach().numpy(), want.reshape(*lead, 13))
        converted = linear.convert()
        for module in (converted, copy.deepcopy(converted)):
            cases.assert_same(module(x).numpy(), y.detach().numpy())
        none = x[..., None, :][..., :0, :]
        assert linear(none).shape == converted(none).shape == (*lead, 0, 13)


@pytest.mark.any_isa
@pytest.mark.parametrize("weight_dtype", ["int8", "int4", "int2", "uint4"])
def test_linear_gradients_are_those_of_the_values(weight_dtype):
    """Autograd through the float product of what FakeQuantize gives."""
    linear = layer(weight_dtype)
    other, x = copy.deepcopy(linear), torch.tensor(cases.floats(3, (2, 5, 37), 2.0), requires_grad=True)
    again = x.detach().clone().requires_grad_()
    other.activation_quantizer.initialize(x)
    dy = torch.tensor(cases.floats(4, (2, 5, 13)))
    y = linear(x)
    y.backward(dy)
    z = torch.nn.functional.linear(other.activation_quantizer(again), other.weight_quantizer(other.weight), other.bias)
    z.backward(dy)
    torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, again.grad, rtol=1e-5, atol=1e-5)
    pairs = dict(other.named_parameters())
    assert sorted(pairs) == ["activation_quantizer.scale", "bias", "weight", "weight_quantizer.scale"]
    for name, parameter in linear.named_parameters():
        torch.testing.assert_close(parameter.grad, pairs[name].grad, rtol=1e-5, atol=1e-5)


@pytest.mark.any_isa
def test_training_and_what_is_saved():
    torch.manual_seed(0)
    network = torch.nn.Sequential(layer("int4", n=24), torch.nn.ReLU(), layer("int2", n=5, k=24))
    x, goal = torch.rand(64, 37), torch.randint(5, (64,))
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(network(x), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    y = network(x).detach()
    again = torch.nn.Sequential(layer("int4", n=24), torch.nn.ReLU(), layer("int2", n=5, k=24))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x), y)
    deployed = torch.nn.Sequential(network[0].convert(), torch.nn.ReLU(), network[2].convert())
    assert torch.equal(deployed(x), y)
    restored = torch.nn.Sequential(again[0].convert(), torch.nn.ReLU(), again[2].convert())
    with torch.no_grad():
        restored[0].weight.zero_()
    restored.load_state_dict(deployed.state_dict())
    assert torch.equal(restored(x), y)
    file = io.BytesIO()
    torch.save(deployed, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), y)


@pytest.mark.any_isa
def test_bad_arguments():
    raises(TypeError, "dtype", FakeQuantize, "int3")
    raises(ValueError, "method", FakeQuantize, method="best")
    raises(ValueError, "channels", FakeQuantize, axis=0)
    raises(ValueError, "channels", FakeQuantize, channels=3)
    raises(ValueError, "grad_factor", FakeQuantize, grad_factor=-1.0)
    groups = qkernels.choose_qparams(np.ones((2, 8), np.float32), group_size=4)
    raises(NotImplementedError, "qparams", FakeQuantize.from_qparams, groups)
    raises(TypeError, "x", FakeQuantize(), torch.ones(3, dtype=torch.float64))
    raises(ValueError, "x", FakeQuantize(), torch.tensor([1.0, np.nan]))
    raises(RuntimeError, "convert", layer("int8").convert)
    raises(ValueError, "x", layer("int8"), torch.ones(2, 36))
    raises(ValueError, "x", layer("int8"), torch.tensor(1.0))
    per_column = FakeQuantize("int8", axis=1, channels=3)
    raises(ValueError, "weight_quantizer", QATLinear, torch.ones(2, 3), None, per_column, FakeQuantize("uint8"))
    raises(ValueError, "activation_quantizer", QATLinear, torch.ones(2, 3), None, FakeQuantize(), per_column)


@pytest.mark.any_isa
def test_examples():
    result = doctest.testmod(sys.modules["qkernels.torch"])
    assert result.attempted > 10 and result.failed == 0


@pytest.mark.any_isa
def test_without_torch():
    program = "import sys; sys.modules['torch'] = None; import qkernels, qkernels.qat; import qkernels.torch"
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert got.stderr.splitlines()[-1] == "ImportError: qkernels.torch needs PyTorch: pip install 'qkernels[torch]'"


def test_parameters_that_are_not_chosen_yet():
    quantizer = FakeQuantize("int8")
    with pytest.raises(RuntimeError, match="^qparams: "):
        quantizer.qparams()
    with pytest.raises(RuntimeError, match="^qparams: "):
        quantizer.quantize(torch.ones(3))
    quantizer(torch.ones(3))
    assert quantizer.qparams().scale == np.float32(1) / 127
