"""Watch the gradient flow of any Keras model while it trains, without changing the training.

    monitor = GradientFlowMonitor(every=10)
    model.fit(x, y, callbacks=[monitor])                   # Keras's loop, or

    with GradientFlowMonitor(model, optimizer=optimizer) as monitor:
        ...                                                # an eager loop of your own, or
        train_step = monitor.function(train_step)          # in place of tf.function(train_step)

The step that is sampled is a second trace of the same step, with probes; all other steps run the
plain one. A sample is one vector, and one transfer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack

import keras
import tensorflow as tf

from course_lib._validation import require_integer
from course_lib.flow_recorder import FlowRecorder
from course_lib.monitoring import FlowRecord
from course_lib.tf.patching import override, restore
from course_lib.tf.probes import Trace, instrumented

_KEY = "gradient_flow_sample"


class GradientFlowMonitor(keras.callbacks.Callback):
    r"""Record gradients, activations and updates of any Keras model at every `every`-th step.

    Use it in one of three ways; the loop stays as it is:

        monitor = GradientFlowMonitor()
        model.fit(x, y, callbacks=[monitor])                      # Keras's loop, or

        monitor = GradientFlowMonitor(model, optimizer=rule)
        step = monitor.function(step)    # a compiled step, in place of tf.function(step), or

        with GradientFlowMonitor(model, optimizer=rule) as monitor:
            ...                                                   # an eager loop

        print(diagnose(monitor))                                  # of course_lib.diagnosis
        plot_flow_record(monitor.record)                          # of course_lib.plots

    Arguments:
        model: the model; `fit` sets it if None.
        optimizer: an optimizer or a sequence of them; the model's own if None.
        every: sampling interval in steps (with `steps_per_execution`, in executions).
        max_records: bound on the samples kept; beyond it every second one is dropped and the
            interval doubles, so a record always spans the run.
        share: a value is saturated if its slope is below this share of the largest slope.
        max_calls: how many calls of one layer are recorded in a pass.

    The weight gradients are those handed to the optimizer, before its clipping, and unscaled under
    mixed precision. Layers inside an RNN layer are not looked into: see `bptt_gradient_profile`.
    An activation computed inside a custom layer is seen if it ends the layer, in compiled steps.
    A softmax or sigmoid that the loss sees through has its gradient measured at its logits, and so
    has every `tf.nn.softmax` and `tf.nn.sigmoid` that ends a layer in a compiled step.

    Training is the same bit for bit with and without the monitor. In a compiled step TensorFlow
    joins neighbouring operations that nobody else reads, and rounds as they are joined. So a sum or
    product that is joined is measured in a copy. What is inside the kernel of a matrix product or a
    convolution is not measured: a layer without activation in front of an activation layer of its
    own (tanh, sigmoid, ELU), or a dense one in front of a sum, has NaN for the scale of its
    output, unless the attribute `reads_joined` is set to True; training then differs by rounding,
    in its last digit at first. Nor is a gradient that the step has no use for, as in front of the
    first layer that is trained. All this was found on a CPU; with XLA (`jit_compile`), on a GPU or
    in other versions of TensorFlow, other things may be joined. Not the same is what TensorFlow
    expects to need more than 205 MB on a CPU with the measurements and less without: it then cuts
    sums of more than two gradients up, and they round otherwise.
    Draws by `tf.random` without a seed of their own depend on the graph, and differ as well.
    Raises TypeError or ValueError for what is not of these.
    """

    def __init__(
        self,
        model: keras.Model | None = None,
        *,
        optimizer: object = None,
        every: int = 10,
        max_records: int = 500,
        share: float = 0.1,
        max_calls: int = 8,
    ) -> None:
        super().__init__()
        if model is not None and not isinstance(model, keras.Model):
            raise TypeError(f"`model` (a {type(model).__name__}) must be a keras.Model.")
        self._watched = model
        self._given = _check_optimizers(optimizer)
        self._recorder = FlowRecorder(
            framework="TensorFlow", every=every, max_records=max_records, share=share
        )
        self._max_calls = require_integer("max_calls", max_calls, minimum=1)
        self.reads_joined = False
        self._step, self._trace = 0, None
        self._traces: list[Trace] = []
        self._measured = self._plain = None
        self._outer, self._sampling = ExitStack(), ExitStack()
        self._entered = self._live = self._compiled = False

    @property
    def record(self) -> FlowRecord:
        """What was recorded so far."""
        return self._recorder.record()

    def _target(self) -> keras.Model:
        model = self.model if self._watched is None else self._watched
        if model is None:
            raise ValueError("`model` (=None) must be given when the loop is your own.")
        return model

    def _optimizers(self) -> list[keras.Optimizer]:
        if self._given:
            return list(self._given)
        model = self._target()
        found = [getattr(model, "optimizer", None), *vars(model).values()]
        return list({id(o): o for o in found if isinstance(o, keras.Optimizer)}.values())

    def _probes(self) -> Trace:
        share = self._recorder.share
        return Trace(
            self._target(), share=share, max_calls=self._max_calls, reads_joined=self.reads_joined
        )

    def _with_probes(self, step: Callable, held: tf.Variable | None = None) -> Callable:
        """Return `step` with probes around it, returning its result and the packed vector.

        A compiled step that returns no tensor is optimized less than one that does; so nothing is
        returned with it, and the vector is put into `held`, if that is given.
        """

        # Operations are named after the step's arguments, and joined in the order of their names.
        @functools.wraps(step)
        def measured(*args: object, **kwargs: object) -> tuple:
            trace = self._probes()
            with instrumented(trace, self._optimizers()):
                result = step(*args, **kwargs)
            # A step may be traced for several shapes: its vector says which trace it is of.
            self._traces.append(trace)
            number = tf.constant([len(self._traces) - 1], tf.float64)
            vector = tf.concat([number, trace.pack(result)], axis=0)
            if held is None or any(map(tf.is_symbolic_tensor, tf.nest.flatten(result))):
                return result, vector
            held.assign(vector)
            return result, None

        return measured

    def _add(self, vector: tf.Tensor) -> None:
        vector = vector.numpy()
        trace = self._traces[int(vector[0])]
        self._recorder.add(trace.unpack(self._step, vector[1:]))

    # model.fit -----------------------------------------------------------------------------

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Prepare the second trace of the model's own train step."""
        model = self._target()
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError("`model` must be trained on one replica to be monitored.")
        self._plain, step = model.train_function, model.train_step
        with_probes = self._with_probes(step)

        def measured_step(data: object) -> dict:
            logs, vector = with_probes(data)
            return {**logs, _KEY: vector}

        had_own = "train_step" in vars(model)
        object.__setattr__(model, "train_step", measured_step)
        try:
            model.make_train_function(force=True)
            self._measured = model.train_function
        finally:
            if had_own:
                object.__setattr__(model, "train_step", step)
            else:
                object.__delattr__(model, "train_step")
            model.train_function = self._plain

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """If the step is due, let the traced step with probes run once in place of the plain."""
        if self._recorder.wants(self._step):
            self._target().train_function = self._run_measured

    def _run_measured(self, iterator: object) -> dict:
        self._target().train_function = self._plain  # before anything can fail
        logs = dict(self._measured(iterator))
        self._add(logs.pop(_KEY))
        return logs

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the step."""
        self._step += 1

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leave the model with the plain step."""
        self._target().train_function = self._plain
        self._measured = self._plain = None

    # Loops of your own ---------------------------------------------------------------------

    def function(self, step: Callable, **options: object) -> Callable:
        """Return a compiled `step`, as `tf.function(step, **options)` does, that is monitored."""
        if not callable(step):
            raise TypeError(f"`step` (={step!r}) must be a function.")
        python = getattr(step, "python_function", step)
        plain = tf.function(python, **options)
        held = None
        if not options.get("jit_compile"):  # XLA has an optimizer of its own, and no open shapes
            held = tf.Variable(tf.zeros([0], tf.float64), shape=[None], trainable=False)
        measured = tf.function(self._with_probes(python, held), **options)

        def run(*args: object, **kwargs: object) -> object:
            self._sampling.close()  # the compiled step brings its own probes
            self._compiled = True
            try:
                if self._recorder.wants(self._step):
                    result, vector = measured(*args, **kwargs)
                    self._add(held if vector is None else vector)
                else:
                    result = plain(*args, **kwargs)
            finally:
                self._compiled = False
            self._step += 1
            return result

        return run

    def __enter__(self) -> GradientFlowMonitor:
        if self._entered:
            raise RuntimeError("This monitor is already in use; make a second one.")
        if not self._optimizers():
            raise ValueError("`optimizer` (=None) must be given: the model has none of its own.")
        self._entered = True
        patched: list = []
        self._outer.callback(restore, patched)
        for optimizer in self._optimizers():
            override(optimizer, "apply", self._counted(optimizer), patched)
        self._begin_step()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sampling.close()
        self._outer.close()
        self._entered = False

    def _begin_step(self) -> None:
        self._done: set[int] = set()
        if self._recorder.wants(self._step):
            self._trace = self._probes()
            self._sampling.enter_context(instrumented(self._trace, []))
            self._sampling.callback(setattr, self, "_live", False)
            self._live = True

    def _counted(self, optimizer: keras.Optimizer) -> Callable:
        apply = optimizer.apply

        def counted(grads: object, trainable_variables: object = None) -> object:
            if self._compiled:
                return apply(grads, trainable_variables)
            if tf.inside_function():
                raise RuntimeError(
                    "A compiled step is not seen from outside: make it with "
                    "monitor.function(step) in place of tf.function(step), or, with model.fit, "
                    "pass callbacks=[monitor] in place of `with`."
                )
            if self._live:
                result = self._trace.apply(optimizer, apply, grads, trainable_variables)
            else:
                result = apply(grads, trainable_variables)
            self._done.add(id(optimizer))
            if len(self._done) == len(self._optimizers()):
                self._close_step()
            return result

        return counted

    def _close_step(self) -> None:
        if self._live:
            sample = self._trace.unpack(self._step, self._trace.pack().numpy())
            self._recorder.add(sample)
        self._sampling.close()
        self._step += 1
        self._begin_step()


def _check_optimizers(optimizer: object) -> tuple[keras.Optimizer, ...]:
    if optimizer is None:
        return ()
    rules = (optimizer,) if isinstance(optimizer, keras.Optimizer) else optimizer
    rules = tuple(rules) if isinstance(rules, (list, tuple)) else None
    if not rules or not all(isinstance(rule, keras.Optimizer) for rule in rules):
        raise TypeError(
            f"`optimizer` (={optimizer!r}) must be a keras.Optimizer, a sequence of them, or None."
        )
    return rules
