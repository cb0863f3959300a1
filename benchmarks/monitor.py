"""What watching a training run costs: the monitor against what people write by hand.

    python benchmarks/monitor.py [--framework pytorch tf] [--rounds 12] [--every 10]

A 20-layer width-256 ReLU perceptron at batch 64 is trained by several loops in turn, fifty steps
of each per round, in one run on one thread, so that a busy machine slows all of them alike. Printed
is the median over the rounds of each loop's time over that of the bare loop in the same round. It
moves by several percent from run to run, so it does not decide about a bar of 3 %. What does is
printed in brackets: the loop alone, 60 samples, each sampled step and the one after it against the
median of the steps between, as a share of ten of these; and between which values that median lies
in 90 % of redraws of the samples. So for the monitored loop, and for the one that only reads.

    bare      no monitoring
    monitor   GradientFlowMonitor(every=10)
    reads     no hook and no record: every 10 steps, the norms alone of as many tensors of the same
              sizes as the monitor measures, and the counts of active units (PyTorch)
    loop      the lectures' own: one `.norm().item()` per parameter, at every step
    hooks     a backward hook per layer that keeps a norm as a float, at every step
    histogram a 64-bin histogram per parameter and gradient, as `wandb.watch` logs, every 10 steps
    tensorboard `SummaryWriter.add_histogram` per parameter and gradient, every 10 steps (PyTorch)
    wandb     `wandb.watch(log="all", log_freq=10)` itself, offline (PyTorch)
    compiled  `tf.norm` of every gradient inside the compiled step, at every step (TensorFlow)

and for TensorFlow a second line, `fit`, where fifty steps are an epoch and each loop is a
`model.fit` of its own, one after the other: without callbacks, with the monitor, and with Keras's
`TensorBoard` callback (if TensorBoard is installed), which writes histograms of the weights after
every epoch. What the first fifty steps cost, tracing and compiling included, is printed in seconds:
a monitored step is traced twice.

TensorBoard and wandb are left out where they are not installed. Time is that of this process: what
wandb does in a process of its own is not counted. The loops other than the monitor see weights and
weight gradients only (the hooks: activation gradients only).
Exit status 1 if the monitor's own costs are more than 3 % of a step.
"""

import argparse
import importlib.util
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

# Read once, when the frameworks are loaded: timings with more threads than free cores say nothing.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
             "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):  # fmt: skip
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the course need not be installed

DEPTH, WIDTH, BATCH, STEPS, SAMPLES = 20, 256, 64, 50, 60
BAR = 0.03
FIRST = {}  # seconds that each loop's first steps took, tracing included


def interleave(loops, rounds):
    """Return each loop's median ratio to the first, and the first's median milliseconds."""
    for name, run in loops.items():
        start = time.process_time()
        run(STEPS)
        FIRST[name] = time.process_time() - start
    times = {name: [] for name in loops}
    for k in range(rounds):
        order = list(loops) if k % 2 else list(reversed(loops))
        for name in order:
            start = time.process_time()
            loops[name](STEPS)
            times[name].append((time.process_time() - start) / STEPS)
    bare = times["bare"]
    ratios = {
        name: statistics.median(t / b for t, b in zip(spent, bare, strict=True))
        for name, spent in times.items()
    }
    return ratios, 1e3 * statistics.median(bare)


def own_costs(run, every):
    """Return what each of many samples added to `every` steps of a monitored loop, as a share."""
    costs = []
    for _ in range(SAMPLES):
        times = []
        for _ in range(every):
            start = time.process_time()
            run(1)
            times.append(time.process_time() - start)
        ordinary = statistics.median(times[2:])
        costs.append((times[0] + times[1] - 2 * ordinary) / (every * ordinary))
    return costs


def spread(values, draws=2000):
    """Return the interval that holds the median of redrawn values in 90 % of the draws."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(draws))
    return medians[draws // 20], medians[-draws // 20]


def pytorch_loops(every, rule_name):
    """Return the loops in PyTorch, each with a model of its own."""
    import torch
    from torch import nn

    from course_lib.pytorch import GradientFlowMonitor

    torch.set_num_threads(1)
    x = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()  # full backward hooks warn without it; all loops pay for it alike

    def build():
        torch.manual_seed(0)
        parts = [p for _ in range(DEPTH) for p in (nn.Linear(WIDTH, WIDTH), nn.ReLU())][:-1]
        model = nn.Sequential(*parts)
        for layer in model[::2]:
            nn.init.kaiming_normal_(layer.weight)
        rule = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[rule_name]
        return model, rule(model.parameters(), lr=1e-4)

    def loop(after=None, prepare=None):
        model, rule = build()
        if prepare:
            prepare(model, rule)
        count = iter(range(10**9))

        def run(steps):
            for _ in range(steps):
                rule.zero_grad()
                model(x).square().mean().backward()
                if after:
                    after(model, next(count))
                rule.step()

        return run

    def norms(model, step):
        for parameter in model.parameters():
            parameter.grad.norm().item()

    layers = [torch.randn(BATCH, WIDTH) for _ in range(2 * DEPTH - 1)]  # stand-ins of the outputs

    def reads(model, step):
        if step % every == 0:
            weights = [p.detach() for p in model.parameters()]
            grads = [p.grad for p in model.parameters()]
            for tensors in (layers, layers, grads, weights, grads):  # outputs' gradients; clipped
                torch.stack(torch._foreach_norm(tensors)).tolist()
            for h in layers[1::2]:
                torch.sign(h).sum(0).numpy()

    def histograms(model, step):
        if step % every == 0:
            for parameter in model.parameters():
                for values in (parameter.detach(), parameter.grad):
                    torch.histc(values, bins=64).tolist()

    def hooks(model, rule):
        seen = {}
        for k, layer in enumerate(model):
            layer.register_full_backward_hook(
                lambda m, i, o, k=k: seen.__setitem__(k, o[0].norm().item())
            )

    def monitored(model, rule):
        GradientFlowMonitor(model, optimizer=rule, every=every).__enter__()

    loops = {"bare": loop(), "monitor": loop(prepare=monitored), "reads": loop(reads),
             "loop": loop(norms), "hooks": loop(prepare=hooks),
             "histogram": loop(histograms)}  # fmt: skip
    return {**loops, **pytorch_tools(loop, every)}


def pytorch_tools(loop, every):
    """Return the loops of the tools that are installed, writing into folders of their own."""
    loops = {}
    if importlib.util.find_spec("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(tempfile.mkdtemp())

        def write(model, step):
            if step % every == 0:
                for name, parameter in model.named_parameters():
                    writer.add_histogram(name, parameter, step)
                    writer.add_histogram(f"{name}.grad", parameter.grad, step)

        loops["tensorboard"] = loop(write)
    else:
        print("(tensorboard is not installed: its histograms are left out)")
    if importlib.util.find_spec("wandb"):
        import wandb

        run = wandb.init(mode="offline", dir=tempfile.mkdtemp(), reinit="finish_previous",
                         settings=wandb.Settings(silent=True))  # fmt: skip
        loops["wandb"] = loop(
            lambda model, step: run.log({"step": step}),
            lambda model, rule: run.watch(model, log="all", log_freq=every),
        )
    else:
        print("(wandb is not installed: its own loop is left out)")
    return loops


def tf_loops(every, rule_name):
    """Return the loops in TensorFlow, compiled, each with a model of its own."""
    import keras
    import tensorflow as tf

    from course_lib.tf import GradientFlowMonitor

    x = tf.random.stateless_normal((BATCH, WIDTH), seed=(0, 0))

    def build():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((WIDTH,))])
        for k in range(DEPTH):
            last = k == DEPTH - 1
            model.add(keras.layers.Dense(WIDTH, None if last else "relu",
                                         kernel_initializer="he_normal"))  # fmt: skip
        rule = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[rule_name]
        return model, rule(1e-4)

    def loop(wrap, after=None, inside=None):
        model, rule = build()

        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x, training=True)))
            grads = tape.gradient(loss, model.trainable_variables)
            rule.apply_gradients(zip(grads, model.trainable_variables, strict=True))
            if inside:
                return inside(grads)
            return grads if after else loss

        step, count = wrap(step, model, rule), iter(range(10**9))

        def run(steps):
            for _ in range(steps):
                result = step(x)
                if after:
                    after(result, model, next(count))

        return run

    def plain(step, model, rule):
        return tf.function(step)

    def monitored(step, model, rule):
        return GradientFlowMonitor(model, optimizer=rule, every=every).function(step)

    def norms(grads, model, step):
        for grad in grads:
            float(tf.norm(grad))

    def histograms(grads, model, step):
        if step % every == 0:
            for values in (*grads, *(v.value for v in model.trainable_variables)):
                low, high = tf.reduce_min(values), tf.reduce_max(values) + 1e-12
                tf.histogram_fixed_width(values, [low, high], 64).numpy()

    def stacked(grads):
        return tf.stack([tf.norm(grad) for grad in grads])

    return {"bare": loop(plain), "monitor": loop(monitored), "loop": loop(plain, norms),
            "histogram": loop(plain, histograms),
            "compiled": loop(plain, lambda result, *_: result.numpy(), stacked)}  # fmt: skip


def tf_fit(every, rule_name, rounds):
    """Return the ratio of every epoch of `model.fit` to the median bare one, and its ms."""
    import keras
    import numpy as np

    from course_lib.tf import GradientFlowMonitor

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.times = [*getattr(self, "times", []), time.process_time()]

    x = np.random.default_rng(0).normal(size=(BATCH * STEPS, WIDTH)).astype("float32")
    given = {"bare": [], "monitor": [GradientFlowMonitor(every=every)]}
    if importlib.util.find_spec("tensorboard"):
        given["tensorboard"] = [keras.callbacks.TensorBoard(tempfile.mkdtemp(), histogram_freq=1)]
    else:
        print("(tensorboard is not installed: its callback is left out)")
    median = {}
    for name, callbacks in given.items():
        keras.utils.set_random_seed(0)
        hidden = [keras.layers.Dense(WIDTH, "relu", kernel_initializer="he_normal")
                  for _ in range(DEPTH - 1)]  # fmt: skip
        model = keras.Sequential([keras.Input((WIDTH,)), *hidden, keras.layers.Dense(WIDTH)])
        rule = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[rule_name]
        model.compile(rule(1e-4), "mse", jit_compile=False)
        clock = Clock()
        model.fit(x, 0 * x, batch_size=BATCH, epochs=rounds + 2, shuffle=False, verbose=0,
                  callbacks=[clock, *callbacks])  # fmt: skip
        FIRST[name] = clock.times[1] - clock.times[0]
        median[name] = statistics.median(np.diff(clock.times[1:])) / STEPS
    ratios = {name: spent / median["bare"] for name, spent in median.items()}
    return ratios, 1e3 * median["bare"]


def show(framework, rule, ratios, bare, own=()) -> bool:
    """Print one line of the table; return whether the monitor's own costs are above the bar."""
    own = dict(own)
    shown = {name: f"{100 * (r - 1):+.1f} %" for name, r in ratios.items() if name != "bare"}
    for name, costs in own.items():
        low, high = (100 * cost for cost in spread(costs))
        shown[name] += f" (own {100 * statistics.median(costs):.1f} %, {low:.1f} to {high:.1f})"
    above = bool(own) and statistics.median(own["monitor"]) > BAR
    first = f"first steps {FIRST['bare']:.1f} s, monitored {FIRST['monitor']:.1f} s"
    print(f"{framework:<8} {rule:<5} step {bare:5.1f} ms  "
          f"{'  '.join(f'{name} {text}' for name, text in shown.items())}"
          f"{'  ABOVE THE BAR' if above else ''}  ({first})", flush=True)  # fmt: skip
    return above


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", nargs="+", default=["pytorch", "tf"])
    parser.add_argument("--optimizer", nargs="+", default=["sgd", "adam"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--every", type=int, default=10, choices=(5, 10, 25, 50))
    given = parser.parse_args()
    print(f"{DEPTH} layers of width {WIDTH}, batch {BATCH}, every={given.every}, one thread, "
          f"median of {given.rounds} interleaved rounds of {STEPS} steps")  # fmt: skip
    failed = False
    for framework in given.framework:
        loops = {"pytorch": pytorch_loops, "tf": tf_loops}[framework]
        for rule in given.optimizer:
            running = loops(given.every, rule)
            ratios, bare = interleave(running, given.rounds)
            own = {name: own_costs(running[name], given.every)
                   for name in ("monitor", "reads") if name in running}  # fmt: skip
            failed |= show(framework, rule, ratios, bare, own)
            if framework == "tf":
                show("tf fit", rule, *tf_fit(given.every, rule, given.rounds))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
