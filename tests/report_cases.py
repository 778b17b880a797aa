"""Reports of checkpoints, real in form, hostile or extreme; and a parser that insists on well-formed pages."""

import math
from html.parser import HTMLParser

INT4, INT8 = "int4, group_size 32, method gptq", "int8"
HOSTILE = [
    "<script>document.title = 'run'</script>", "\"'><img src=http://127.0.0.1/x onerror='document.title = 1'>",
    "</title></svg></table>", "\u202egpj.exe\x00", "\udc80\ud83d lone \udfff", "&amp;<!-- ]]>", "{title}%s\\",
    "x\ny\tz\r", "שלום.עולם", "w" * 300, "",
]


def layer(name, shape, of=INT4, bits=5.0, sqnr=20.0, seconds=0.21):
    weights = math.prod(shape)
    return {"name": name, "of": of, "shape": list(shape), "dtype": "F32", "float_bytes": 4 * weights,
            "bytes": int(weights * bits / 8), "bits": bits, "sqnr": sqnr, "seconds": seconds}


def kept(name, shape, why):
    return {"name": name, "shape": list(shape), "dtype": "F32", "bytes": 4 * math.prod(shape), "why": why}


def report(layers, kept=(), **changes):
    return {"version": 1, "qkernels": "0.1.0", "source": "model.safetensors", "output": "out.safetensors",
            "isa": "avx2", "layout": "nr16-kr2", "processes": 2, "seconds": 12.34,
            "layers": list(layers), "kept": list(kept), **changes}


def encoder(blocks=6):
    """As of MiniLM; the layer before the last in int8, the last one with the lowest SQNR."""
    shapes = {"attention.self.query": (384, 384), "attention.self.key": (384, 384), "attention.self.value": (384, 384),
              "attention.output.dense": (384, 384), "intermediate.dense": (1536, 384), "output.dense": (384, 1536)}
    layers, others = [], [kept("embeddings.word_embeddings.weight", (30522, 384), "an embedding")]
    for name, shape in ((f"encoder.layer.{i}.{name}", shape) for i in range(blocks) for name, shape in shapes.items()):
        layers.append(layer(f"{name}.weight", shape, sqnr=20 + len(layers) % 7 / 10))
        others.append(kept(f"{name}.bias", shape[:1], "not a matrix"))
    layers[-2:] = layer(layers[-2]["name"], (1536, 384), INT8, 8.08, 42.0), dict(layers[-1], sqnr=17.3)
    return report(layers, others)


def hostile():
    return report([layer(name, (64, 64), f"int4 {name}") for name in HOSTILE], [kept(n, (3,), n) for n in HOSTILE],
                  source=HOSTILE[0], output=HOSTILE[3], isa=HOSTILE[1], layout=HOSTILE[2], qkernels=HOSTILE[4])


class Page(HTMLParser):
    """A page as lists: the attributes of its elements, the texts of cells in the rows of its tables, and all text."""

    VOID = {"meta", "wbr"}

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.rows, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), (tag, names)
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        assert "svg" in self.open, tag
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]
