"""Whole checkpoints to quantized models: layer by layer, in any executor, and going on where they were interrupted."""

import contextlib
import itertools
import queue
import time
import warnings

from . import _arguments as arguments
from . import _files, entries, executors
from .conversion import Conversion
from .journal import Journal
from .partial_files import PartialFiles
from .progress import progress
from .quantize_layer import Done, quantize_layer, sqnr
from .threads import available_cpus


def quantize_checkpoint(model, out, *, options=None, plan=None, include=None, exclude=(), calibration=None,
                        fallback=None, keep_bad=False, layout=None, measure=True, executor=None, processes=None,
                        say=lambda line: None):
    """Quantize the linear layers of a checkpoint, however large: each is read, quantized and written by itself.

    Parameters
    ----------
    model : str or path-like
        A safetensors file, the index of a sharded checkpoint, or a folder that holds one of either. Of F32, F16, BF16
        or F64.
    out : str or path-like
        A folder, made if it is missing, which gets files of the same names; for one file also a path that ends in
        ".safetensors". `load` takes either. What is there is replaced in the end.
    options : dict, optional
        Of `quantize_weight`, "format" among them, for all layers.
    plan : Plan, optional
        Instead: options for each layer that is quantized, by the name of its weight, or that without ".weight".
    include, exclude : sequence of str, optional
        With options, of which tensors: names, or patterns as in `fnmatch`. Without include those named ``*.weight``,
        and stacks of weights [E, N, K] named as those of experts are, ``*experts*``; but no routers of experts, output
        heads and embeddings, as `qkernels.kept_names` knows them. Only floats are quantized, 2-D ones, and 3-D ones
        that have such a name or are named without a pattern; all others are kept as they are.
    calibration : str or path-like, optional
        A file of `save` with the InputStatistics of the layers whose method needs them, named likewise; of a stack for
        each weight, "name.0", "name.1" and so on.
    fallback : {"rtn", "hqq"}, optional
        The method for layers that need statistics of which the file of calibration has none, or of no rows, such as
        experts that no token has reached. They are named in a UserWarning. Without it they are an error.
    keep_bad : bool, default False
        Keep layers as they are that cannot be quantized, because of NaN, infinities or what float32 or the scales do
        not hold. They are named in UserWarnings; otherwise in an error, all at once, when all others are done.
    layout : str, optional
        The name of an ISA, such as "neon_dotprod", for whose kernels the weights are packed, as `save` takes it.
    measure : bool, default True
        Whether the SQNR of each layer is measured.
    executor : concurrent.futures.Executor, optional
        What works on the layers: threads, processes, machines that see the same files. By default processes of one
        thread each, which end with this one.
    processes : int, optional
        How many, if no executor is given; by default as many as there are CPUs for this process.
    say : callable, optional
        Takes a line for people about an earlier interruption.

    Returns
    -------
    dict
        The report: "version" (1), "qkernels", "source", "output", "isa" and "layout" (for which weights are packed),
        "processes" (None of an executor), "seconds"; "layers" with for each "name", "of" (its options), "shape",
        "dtype" (of the source), "float_bytes", "bytes" (`QuantizedWeight.nbytes`), "bits" (a weight), "sqnr" (dB, None
        where the error is 0) and "seconds", and where some weights of a stack have another method, "others", their
        numbers by their options; and "kept" with "name", "shape", "dtype", "bytes" and "why".

    Raises
    ------
    OSError
        A file cannot be read or written; the space for all is taken before the work begins.
    ValueError
        An argument does not fit (found before the work begins), or layers cannot be quantized (found when all others
        are done); the message names them.
    concurrent.futures.BrokenExecutor
        A process of the executor was killed.

    Notes
    -----
    Next to the output lie, while the work lasts, the file that is written, ``*.partial``, and a journal of the layers
    that are done, ``*.journal``. After an interruption at any moment, be it SIGKILL or a power cut, the same call goes
    on and ends with the same bytes; layers that are done are compared with their checksums. So does a call with other
    arguments, which takes over the layers that are the same in it; the disk needs space for both until then. The bytes
    do not depend on the executor, nor with a named layout on any machine; those of the methods that use NumPy's linear
    algebra depend on that, and on its number of threads.

    A process needs memory for a few float32 copies of its largest layer, of a stack its largest weight, and of the
    statistics of its inputs. Processes are spawned: a script that calls this has ``if __name__ == "__main__":`` around
    the call.

    Examples
    --------
    >>> import os, tempfile, numpy as np, qkernels
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from qkernels.whole_models import quantize_checkpoint
    >>> folder = tempfile.mkdtemp()
    >>> model, out = (os.path.join(folder, name) for name in ("model.safetensors", "int4.safetensors"))
    >>> qkernels.save(model, {"up.weight": np.eye(64, dtype=np.float32), "up.bias": np.zeros(64, np.float32)})
    >>> with ThreadPoolExecutor() as threads:
    ...     report = quantize_checkpoint(model, out, options={"format": "int4", "group_size": 32}, executor=threads)
    >>> [(layer["name"], layer["of"]) for layer in report["layers"]], [tensor["why"] for tensor in report["kept"]]
    ([('up.weight', 'int4, group_size 32')], ['1-D'])
    >>> qkernels.load(out)["up.weight"].group_size
    32
    """
    start = time.perf_counter()
    conversion = Conversion(model, out, options, plan, include, exclude, calibration, fallback, layout)
    for line in conversion.warnings:
        warnings.warn(line, stacklevel=2)
    if executor is not None and processes is not None:
        raise ValueError("processes: not with an executor")
    count = None
    with contextlib.ExitStack() as stack:
        if executor is None:
            count = arguments.scalar(available_cpus() if processes is None else processes, "processes", 1, 2**10)
            executor = stack.enter_context(executors.local_processes(count))
        done = convert(conversion, executor, at_once=count, keep_bad=keep_bad, measure=measure, say=say,
                       warn=lambda line: warnings.warn(line, stacklevel=4))
    return report_of(conversion, done, count, time.perf_counter() - start)


def convert(conversion, executor, *, at_once, keep_bad, measure, say, warn):
    """Do the work of a Conversion, or what is left of it.

    Parameters
    ----------
    conversion : Conversion
    executor : concurrent.futures.Executor
    at_once : int or None
        How many layers it is given at a time; None: all.
    keep_bad, measure, say
        As `quantize_checkpoint` takes them.
    warn : callable
        Takes a line for people about a layer that is kept because it is bad.

    Returns
    -------
    dict of str to Done
        By the names of layers.
    """
    keys = conversion.keys()
    is_new = not conversion.head.parent.exists()
    conversion.head.parent.mkdir(exist_ok=True)
    with Journal(conversion.journal) as journal:
        bad = _noted_as_bad(journal, keys) if keep_bad else {}
        while True:
            for line in conversion.keep(bad) if bad else ():
                warn(line)
            done, bad = _advance(conversion, keys, journal, executor, at_once, measure, is_new, say)
            if not bad:
                return done
            if not keep_bad:
                whys = (f"{conversion.title(name)}: {bad[name]}" for name in conversion.matrices if name in bad)
                raise ValueError(f"{'; '.join(whys)}; all else is done: --keep-bad, keep_bad= or excluding "
                                 f"{'it' if len(bad) == 1 else 'these'} goes on with that")


def _advance(conversion, keys, journal, executor, at_once, measure, is_new, say):
    """Do all that can be done: the layers that are, and why others are not; if all are, the files are complete."""
    fingerprint = conversion.fingerprint()
    partial = PartialFiles(conversion, fingerprint)
    partial.check(is_known=fingerprint in journal.jobs)
    lines, others = journal.begin(fingerprint), {job: of for job, of in journal.jobs.items() if job != fingerprint}
    done, seals = _noted(lines, conversion)
    if not seals or not partial.are_sealed(seals):
        done = partial.verified(done)
        left = partial.left_by(others, {name: keys[name] for name in conversion.matrices if name not in done})
        if not left:
            for job in others:
                partial.remove_those_of(job)
        try:
            partial.allocate()
        except OSError:
            if not done and not left:
                journal.remove()
                if is_new:
                    conversion.head.parent.rmdir()
            raise
        for taken in partial.take_over(left):
            journal.add(*(_line(conversion, name, keys[name], result) for name, result in taken.items()))
            done |= taken
        for job in others if left else ():
            partial.remove_those_of(job)
        if lines or done:
            say(f"{len(done)} of {len(conversion.matrices)} layers are done already: goes on")
        elif others:
            say(f"{journal.path} is of another job, or its files have changed: begins anew")
        bad = _quantize(partial, done, journal, keys, executor, at_once, measure, say)
        if bad:
            return done, bad
        seals = partial.finish(done)
        if conversion.fingerprint() != fingerprint:
            raise ValueError(f"{conversion.source.path}: was changed while it was quantized")
        journal.add({"sealed": seals})
    partial.publish()
    journal.remove()
    return done, {}


def _line(conversion, name, key, result):
    """What is noted of a layer: where it lies, too, for a job that has others beside it."""
    parts = conversion.file_of[name].parts(name)
    places = {"at": {suffix: part.start for suffix, part in parts.items()}} if isinstance(result, Done) else {}
    return {"layer": name, "key": key, **places, **result._asdict()}


def _noted(lines, conversion):
    """The layers that are done and the checksums of the headers, if those are, by the lines of a journal.

    Lines that are damaged say nothing.
    """
    done, seals = {}, None
    for line in lines:
        if not isinstance(line, dict):
            continue
        name, sealed = line.get("layer"), line.get("sealed")
        if isinstance(sealed, list):
            seals = sealed
        elif isinstance(name, str) and name in conversion.file_of:
            noted = Done.of_line(line)
            if noted.is_of(conversion.file_of[name].parts(name)):
                done[name] = noted
    return done, seals


def _noted_as_bad(journal, keys):
    """Why layers cannot be quantized, as an earlier process has found."""
    lines = [line for of_job in journal.jobs.values() for line in of_job if isinstance(line, dict)]
    return {line["layer"]: line["why"] for line in lines if isinstance(line.get("why"), str)
            and isinstance(line.get("layer"), str) and line.get("key") == keys.get(line["layer"], "")}


def _quantize(partial, done, journal, keys, executor, at_once, measure, say):
    """Quantize the layers that are not done, the largest first, and note them in done and in the journal.

    Returns why some cannot be quantized, a dict of str to str.
    """
    layers = [layer for layer in partial.layers(measure) if layer.name not in done]
    layers.sort(key=lambda layer: -layer.source.tensor.nbytes)
    waiting, running, finished, bad = iter(layers), {}, queue.SimpleQueue(), {}

    def submit(count):
        for layer in itertools.islice(waiting, count):
            future = executor.submit(quantize_layer, layer)
            running[future] = layer
            future.add_done_callback(finished.put)

    def results():
        submit(at_once)
        while running:
            future = finished.get()
            submit(1)
            layer = running[future]
            with _naming(layer.name):
                result = future.result()
            yield layer, result
            del running[future]

    def note(layer, result):
        journal.add(_line(partial.conversion, layer.name, keys[layer.name], result))
        if isinstance(result, Done):
            done[layer.name] = result
        else:
            bad[layer.name] = result.why

    total = sum(layer.source.tensor.nbytes for layer in layers)
    try:
        for layer, result in progress(results(), total, "quantizing", "B", lambda item: item[0].source.tensor.nbytes):
            note(layer, result)
    except BaseException as error:  # no other layer begins, those at work are finished
        if isinstance(error, KeyboardInterrupt):
            say("finishes the layers at work; Ctrl-C once more gives them up")
        for future in running:
            future.cancel()
        for future, layer in running.items():
            if layer.name not in done:
                with contextlib.suppress(Exception):
                    note(layer, future.result())
        raise
    return bad


@contextlib.contextmanager
def _naming(layer):
    """Errors name the layer."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{layer}: {error}") from error
    except MemoryError as error:
        raise _files.FileError(f"{layer}: there is too little memory ({error})") from error
    except OSError as error:
        raise _files.FileError(f"{layer}: {error}") from error


def report_of(conversion, done, processes, seconds):
    """See `quantize_checkpoint`; before the work, with nothing done, without what is measured."""
    from . import __version__

    layers = []
    for name in (name for file in conversion.files for name in file.layers):
        known = [done.get(matrix) for matrix in conversion.source.tensors[name].matrices(name)]
        layers.append(conversion.layer_report(name) | _measured(known))
    kept = [{"name": name, "shape": list(tensor.shape), "dtype": tensor.dtype, "bytes": tensor.nbytes, "why": why}
            for name, ((_, tensor), why) in conversion.kept.items()]
    return {"version": 1, "qkernels": __version__, "source": str(conversion.source.path), "output": str(conversion.out),
            "isa": conversion.isa, "layout": entries.layout_id(conversion.layout), "processes": processes,
            "seconds": seconds, "layers": layers, "kept": kept}


def _measured(known):
    """What was measured of the weights of a layer, Done or None."""
    if None in known:
        return {"sqnr": None, "seconds": None}
    energies = [] if any(done.energies is None for done in known) else [done.energies for done in known]
    return {"sqnr": sqnr(*map(sum, zip(*energies, strict=True))) if energies else None,
            "seconds": sum(done.seconds for done in known)}
