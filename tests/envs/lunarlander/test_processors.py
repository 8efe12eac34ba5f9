"""The bits of LunarLander do not depend on the processor, nor on how many environments a vector holds."""

import ctypes
import platform
from functools import cache

import pytest
import torch
from helpers.parameters import few_by_default
from llvmlite import binding, ir

from pgkit.compiler.signature import flatten
from pgkit.envs.lunarlander import LunarLander
from pgkit.envs.lunarlander.settings import Settings
from pgkit.envs.lunarlander.step import step_definition
from pgkit.envs.signature import EnvStepArguments

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names processors of x86")

PROCESSORS = {16: "x86-64", 32: "x86-64-v3", 64: "x86-64-v4"}
"""Processors by the bytes of a register: SSE2, AVX2 with fused multiply-add, AVX-512."""

COUNT = 19


@cache
def optimized(processor, lanes):
    """The optimized module, the machine it is for, and the function's name and number of arguments."""
    function = step_definition(Settings(), lanes)(ir.Module())
    module = binding.parse_assembly(str(function.module))
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(processor, "", opt=3)
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.loop_interleaving = options.loop_unrolling = False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return module, machine, function.name, len(function.args)


def rollout(processor, lanes):
    """Observations and rewards of 150 steps, by code for a processor."""
    module, machine, name, arguments = optimized(processor, lanes)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    types = [ctypes.c_int64, *[ctypes.c_void_p] * (arguments - 1)]
    kernel = ctypes.CFUNCTYPE(None, *types)(engine.get_function_address(name))
    envs = LunarLander(COUNT)
    envs.reset(range(COUNT))
    (records,) = envs.kernel.state
    action = torch.randint(0, 4, (150, COUNT), generator=torch.Generator().manual_seed(2))
    obs = torch.empty(150, COUNT, 8)
    reward = torch.empty(150, COUNT)
    flags = torch.empty(3, COUNT, dtype=torch.bool)
    for t in range(150):
        addresses = [tensor.data_ptr() for tensor in (action[t], obs[t], reward[t], *flags)]
        kernel(*flatten(EnvStepArguments(COUNT, None, *addresses, state=(records.data_ptr(),))))
    # The engine owns the module now; it must not be compiled from the cache again.
    optimized.cache_clear()
    return torch.cat([obs, reward[..., None]], 2)


def expected():
    envs = LunarLander(COUNT)
    envs.reset(range(COUNT))
    actions = torch.randint(0, 4, (150, COUNT), generator=torch.Generator().manual_seed(2))
    results = [envs.step(action) for action in actions]
    assert sum(int((~result.valid).sum()) for result in results) > 5
    return torch.stack([torch.cat([result.obs, result.reward[:, None]], 1) for result in results])


@pytest.mark.parametrize(
    ("register", "lanes"), few_by_default([(16, 16), (32, 8), (32, 32), (64, 16)], (16, 16), (64, 16))
)
def test_the_bits_are_the_same(register, lanes):
    features = binding.get_host_cpu_features()
    if register > 16 and not features.get({32: "avx2", 64: "avx512f"}[register]):
        pytest.skip("the processor lacks such registers")
    assert torch.equal(rollout(PROCESSORS[register], lanes), expected())


@pytest.mark.parametrize("register", [32, 64])
def test_products_are_not_contracted_with_sums(register):
    """A fused multiply-add would round once where Box2D rounds twice."""
    module, machine, *_ = optimized(PROCESSORS[register], 16)
    assembly = machine.emit_assembly(module)
    assert "vmulps" in assembly
    assert "vfm" not in assembly
    assert "vfnm" not in assembly
