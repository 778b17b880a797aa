"""What becomes what when a checkpoint is quantized, and where it lies in the files: all that is known beforehand."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import _core, _files, entries, model_file, safetensors_format, shards
from .checkpoint import Checkpoint
from .journal import FINGERPRINT
from .layer_choice import Kept, chosen_layers, of_most_bytes
from .layer_inputs import checked_fallback, fallen_back, find_inputs
from .plans import Plan
from .quantize_layer import Layer
from .sensitivity import is_calibrated, label, tried

SUFFIX = ".safetensors"


class OutputFile(NamedTuple):
    """A file that is made.

    Attributes
    ----------
    path : Path
    header : Header
        With zeros for checksums, which have as many digits.
    metadata : dict of str to str
        Of the user.
    descriptions : dict of str to dict
        Of the entries, in the order of the source.
    layers, kept : list of str
        The entries that are quantized, and the others.
    matrices : list of str
        The names of those of the layers, with each weight of a stack by itself.
    """

    path: Path
    header: safetensors_format.Header
    metadata: dict
    descriptions: dict

    @property
    def layers(self):
        return [name for name, description in self.descriptions.items() if description != entries.ARRAY]

    @property
    def kept(self):
        return [name for name, description in self.descriptions.items() if description == entries.ARRAY]

    @property
    def matrices(self):
        return [name + suffix for name in self.layers for suffix in entries.packed_forms(self.descriptions[name])]

    def parts(self, matrix):
        """The tensors of a matrix, by what is added to its name."""
        return entries.parts(matrix, entries.MATRIX, self.header.tensors)

    @property
    def nbytes(self):
        return len(self.header.raw) + sum(tensor.nbytes for tensor in self.header.tensors.values())

    def sealed(self, checksums):
        """The header with these checksums."""
        specs = {name: (tensor.dtype, tensor.shape) for name, tensor in self.header.tensors.items()}
        return model_file.seal(specs, self.metadata, self.descriptions, checksums)


class Conversion:
    """From one checkpoint to a quantized one.

    Parameters
    ----------
    model, out, options, plan, include, exclude, calibration, fallback, layout
        As `whole_models.quantize_checkpoint` takes them.

    Attributes
    ----------
    source : Checkpoint
    matrices : dict of str to SourceTensor
        What is quantized by itself: weights, and each one of a stack.
    out : Path
    plan : Plan
        By the names of tensors; of those without statistics that need them, with the method to fall back on.
    warnings : list of str
        What is done otherwise than it was asked for, lines for people.
    kept : dict of str to Kept
    files : list of OutputFile
    file_of : dict of str to OutputFile
        By the names of matrices.
    index : Path or None
        Of several files.
    isa : str
        The ISA for which weights are packed.
    layout : dict
        That of its kernels.
    journal : Path
        What is done is noted there while the work lasts.
    """

    def __init__(self, model, out, options, plan, include, exclude, calibration, fallback=None, layout=None):
        self.isa = entries.checked_isa(layout, "layout")
        self.layout = _core.weight_layouts()[self.isa]
        self.source = Checkpoint(model)
        self.out = Path(out)
        layers, self.kept = chosen_layers(self.source, options, plan, include, exclude)
        self._layer_of = {matrix: name for name in layers for matrix in self.source.tensors[name].matrices(name)}
        self.matrices = {matrix: source for name in layers
                         for matrix, source in self.source.tensors[name].matrices(name).items()}
        self._calibration = None if calibration is None else os.path.realpath(calibration)
        self.warnings = list(self.source.warnings)
        if plan is None and include is None:
            self.warnings += of_most_bytes(self.source, self.kept)
        self._fallen = {}  # options of matrices
        self._statistics = self._found_statistics(layers, checked_fallback(fallback))
        self.plan = Plan(layers)
        folder, self.index = Path(os.path.realpath(self.out)), None
        names = dict.fromkeys(self.source.shards)  # of the files
        if self.source.index is not None:
            self.index = folder / self.source.index.name
        elif self.out.suffix == SUFFIX:
            folder, names = folder.parent, {shard: folder.name for shard in names}
        self._paths = {shard: folder / (name or shard.removesuffix(SUFFIX) + SUFFIX) for shard, name in names.items()}
        self._check_out(folder)
        self._lay_out()
        self.journal = self.head.with_name(self.head.name + ".journal")
        self.check_paths()
        if folder == Path(os.path.realpath(self.out)):
            self._check_other_models(folder)

    @property
    def head(self):
        """The path that stands for the whole."""
        return self.files[0].path if self.index is None else self.index

    def partial_paths(self, fingerprint):
        """Where files are until they are complete, by their paths in the end; fingerprint: of the job."""
        paths = [file.path for file in self.files] + ([] if self.index is None else [self.index])
        return {path: path.with_name(f"{path.name}.{fingerprint}.partial") for path in paths}

    def check_paths(self, inputs=(), outputs=()):
        """Refuse paths of which one would be written over another: all that the job reads and writes is known here.

        Parameters
        ----------
        inputs, outputs : iterable of (str, path-like)
            What is read and written besides, as `_files.check_apart` takes it.
        """
        read = [("the source", shard.path) for shard in self.source.shards.values()]
        read += [("the index of the source", self.source.index)] if self.source.index else []
        if self._calibration is not None:
            of_calibration = [*shards.shard_paths(self._calibration)[0], shards.model_path(self._calibration)]
            read += [("the calibration file", path) for path in of_calibration]
        partial = self.partial_paths(self.fingerprint())
        written = [("out", path) for path in partial] + [("a partial file", path) for path in partial.values()]
        _files.check_apart([*read, *inputs], [*written, ("the journal", self.journal), *outputs])

    def keep(self, bad):
        """Keep layers as they are that turn out to have weights which cannot be quantized.

        Parameters
        ----------
        bad : dict of str to str
            Why, by the names of matrices.

        Returns
        -------
        list of str
            Lines for people.
        """
        whys = {}
        for matrix in filter(bad.get, self.matrices):
            name = self._layer_of[matrix]
            whys.setdefault(name, []).append(f"{self.title(matrix)}: {bad[matrix]}".removeprefix(f"{name}: "))
        kept = self.kept | {name: Kept(self.source.tensors[name], f"cannot be quantized: {'; '.join(of_layer)}")
                            for name, of_layer in whys.items()}
        self.kept = {name: kept[name] for name in self.source.tensors if name in kept}
        self.plan = Plan({name: options for name, options in self.plan.layers.items() if name not in whys})
        self._layer_of = {matrix: name for matrix, name in self._layer_of.items() if name not in whys}
        self.matrices = {matrix: self.matrices[matrix] for matrix in self._layer_of}
        self._statistics = {matrix: place for matrix, place in self._statistics.items() if matrix in self.matrices}
        self._lay_out()
        return [f"{name} is kept as it is, it {self.kept[name].why}" for name in whys]

    def title(self, matrix):
        """What people know it by: the name of its layer, and of which weight of a stack it is."""
        name = self._layer_of[matrix]
        return name if name == matrix else f"{name}: weight {matrix.removeprefix(name + '.')}"

    def keys(self):
        """Digits for each matrix that are others for everything on which its bytes depend, whatever lies beside it."""
        from . import __version__

        stats, keys = self._input_stats(), {}
        for matrix, (path, tensor) in self.matrices.items():
            place = self._statistics.get(matrix)
            of_inputs = [] if place is None else [stats[place.path], place.tensors]
            parts = [stats[path], tensor, of_inputs, self._options(matrix), self.layout, np.__version__, __version__]
            keys[matrix] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:FINGERPRINT]
        return keys

    def _input_stats(self):
        """By which it is seen whether files that are read have changed."""
        paths = [str(shard.path) for shard in self.source.shards.values()]
        paths += sorted({place.path for place in self._statistics.values()})
        stats = {path: os.stat(path) for path in paths}
        return {path: (path, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}

    def fingerprint(self):
        """Digits that are others for everything on which a byte depends."""
        parts = [list(self._input_stats().values()), self.plan.layers,
                 [hashlib.sha256(file.header.raw).hexdigest() for file in self.files], self.layout, np.__version__]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:FINGERPRINT]

    def layer(self, matrix, path, measure):
        """What a process has to know to quantize a layer, or one of its weights, into the file at path."""
        from . import __version__

        return Layer(matrix, self.matrices[matrix], self._options(matrix), self._statistics.get(matrix), self.layout,
                     str(path), self.file_of[matrix].parts(matrix), measure, __version__)

    def layer_report(self, name):
        """What can be said of a layer before it is quantized."""
        source, options = self.source.tensors[name], self.plan.layers[name]
        shape = source.tensor.shape
        nbytes = tried(options).nbytes_of(shape)
        report = {"name": name, "of": label(options), "shape": list(shape), "dtype": source.tensor.dtype,
                  "float_bytes": 4 * math.prod(shape), "bytes": nbytes, "bits": 8 * nbytes / math.prod(shape)}
        others = {}
        for i, matrix in enumerate(source.matrices(name)):
            if matrix in self._fallen:
                others.setdefault(label(self._fallen[matrix]), []).append(i)
        return report | ({"others": others} if others else {})

    def _options(self, matrix):
        return self._fallen.get(matrix) or self.plan.layers[self._layer_of[matrix]]

    def _found_statistics(self, layers, fallback):
        """Where the statistics lie of each matrix that needs them; layers, or some of their weights, that have none get
        options with the fallback."""
        needed = {matrix: source.tensor.shape[1] for matrix, source in self.matrices.items()
                  if is_calibrated(layers[self._layer_of[matrix]])}
        if not needed:
            return {}
        if self._calibration is None:
            options = layers[self._layer_of[next(iter(needed))]]
            raise ValueError(f"calibration: needed for method {options['method']!r}")
        places, without = find_inputs(self._calibration, needed, may_lack=fallback is not None)
        for matrix in without:
            self._fallen[matrix] = fallen_back(layers[self._layer_of[matrix]], fallback, matrix)
        for name in dict.fromkeys(self._layer_of[matrix] for matrix in without):
            matrices = list(self.source.tensors[name].matrices(name))
            if all(matrix in self._fallen for matrix in matrices):
                layers[name] = [self._fallen.pop(matrix) for matrix in matrices][0]
        if without:
            self.warnings.append(f"{self._calibration} has no statistics of {len(without)} of {len(needed)} weights, "
                                 f"for which the method is {fallback}: {', '.join(without)}")
        return places

    def _check_out(self, folder):
        is_file = folder != Path(os.path.realpath(self.out))
        if self.index is not None and self.out.suffix == SUFFIX:
            raise ValueError(f"out: got {self.out}, takes a folder, as {self.source.path} has several files")
        if self.out.exists() and self.out.is_dir() == is_file:
            found = "a folder" if is_file else f"a file whose name does not end in {SUFFIX}"
            raise ValueError(f"out: {self.out} is {found}")
        if not (folder if is_file else folder.parent).is_dir():
            raise ValueError(f"out: {self.out} lies in no folder")
        becoming = {}
        for shard, path in self._paths.items():
            if path in becoming:
                raise ValueError(f"{self.source.path}: shards {becoming[path]} and {shard} would both become "
                                 f"{path.name}")
            becoming[path] = shard
        for path in [*becoming, *([self.index] if self.index else [])]:
            if os.path.lexists(path) and not path.is_file():
                raise ValueError(f"out: {path} is no regular file")

    def _check_other_models(self, folder):
        """Refuse a folder that would then have two models."""
        for path in folder.glob("*" + (shards.INDEX_SUFFIX if self.index else SUFFIX)):
            if path not in (self.index, *self._paths.values()):
                raise ValueError(f"out: {self.out} holds another model, {path.name}")

    def _lay_out(self):
        self.files = [self._file(shard) for shard in self.source.shards]
        self.file_of = {matrix: file for file in self.files for matrix in file.matrices}
        entries.check_names({name: description for file in self.files
                             for name, description in file.descriptions.items()}, self.source.path)

    def _file(self, shard):
        header = self.source.shards[shard].header
        descriptions, specs, packed = {}, {}, set()
        for name, tensor in header.tensors.items():
            if name in self.kept:
                descriptions[name] = entries.ARRAY
                specs[name] = tensor.dtype, tensor.shape
                continue
            descriptions[name] = entries.weight_description(tried(self.plan.layers[name]), tensor.shape, self.isa)
            for matrix in self.source.tensors[name].matrices(name):
                packed.add(matrix)
                specs |= {matrix + suffix: spec for suffix, spec in self._tensors(matrix).items()}
        order = model_file.in_order(specs, packed)
        zeros = {name: "0" * model_file.checksum_digits(_nbytes(*specs[name])) for name in order}
        path = self._paths[shard]
        try:
            made = model_file.seal({name: specs[name] for name in order}, header.metadata, descriptions, zeros)
        except ValueError as error:  # it would be too long
            raise ValueError(f"out: {path}: {error}") from None
        return OutputFile(path, made, header.metadata, descriptions)

    def _tensors(self, matrix):
        """Dtype and shape of each tensor that a matrix becomes, by what is added to its name."""
        like, (n, k) = tried(self._options(matrix)), self.matrices[matrix].tensor.shape
        tensors = {"": ("U8", (like.packed.size_of(n, k, self.layout),))}
        if like.format == "codebook4":
            tensors[".levels"] = ("I8", (16,) if like.levels.ndim == 1 else (n, 16))
        if like.input_scales is not None:
            tensors[".input_scales"] = ("F32", (k,))
        return tensors


def _nbytes(dtype, shape):
    return math.prod(shape) * safetensors_format.BITS[dtype] // 8
