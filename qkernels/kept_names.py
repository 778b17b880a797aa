"""Weights that stay as they are unless they are asked for, by the names that well-known models give them.

A router of a mixture of experts decides, so that a small error takes other experts; an output head is where errors
are no longer made good; and an embedding is looked up, not multiplied.

What is inside of a layer and what is not have the same words for other things: ``output.weight`` is the head of a
model, ``blocks.0.att.output.weight`` a linear layer. So a pattern is held against what follows the number of a layer,
``mlp.gate.weight`` of ``model.layers.0.mlp.gate.weight``, and some fit outside of all layers only.
"""

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

# A component of a name that numbers layers: "0", "layer_0". A number right before "weight" is that of a part.
NUMBER = re.compile(r"(?:\w*(?:layer|block|stage)s?_?)?[0-9]+")
ATTENTION = ("*att*.*", "*time_mix*.*")
LINEAR_PARTS = (*ATTENTION, "*mlp.*", "*ffn.*", "*feed_forward.*")


class Names(NamedTuple):
    """Names of one kind of weight.

    Attributes
    ----------
    what : str
    where : str
        "anywhere", "outside of layers", or "alone": the pattern fits whole names only.
    patterns : tuple of str
        As in `fnmatch`, of all that follows the number of a layer, or of what comes after one of its dots.
    but : tuple of str
        Patterns of names, whole ones, that are none of these.
    """

    what: str
    where: str
    patterns: tuple
    but: tuple = ()


KEPT = (
    Names("router", "anywhere", ("*router*", "*expert_gate.*", "*experts_gate.*", "*moe_gate.*", "*gate_inp*.*",
                                 "gating*.*", "coefficient.weight")),
    Names("router", "anywhere", ("gate.*", "gates.*"), (*ATTENTION, "*experts.*")),
    Names("output head", "anywhere", ("*lm_head*", "*classifier*", "*predictions*", "head.weight", "embed_out.*",
                                      "unembed*", "*_for_head.*")),
    Names("output head", "outside of layers", (
        "output.weight", "output_layer.weight", "*output_projection.weight", "*output_proj.weight", "proj_out.weight",
        "ff_out.weight", "final_proj.weight", "final_layer.linear.weight", "generator.proj.weight", "generator.weight",
        "decoder.weight", "decoder_pred.weight", "*_head.*", "*_heads.*", "heads.*", "head.fc.weight", "*logits*",
        "*qa_output*", "score.weight", "*_score.*", "*summary.weight", "*seq_relationship*", "lm_loss.weight",
        "pred_layer.*", "vocab_proj*", "vocab_transform.*", "ctc_lo.*", "ctc_proj.*", "class_predictor.*",
        "bbox_predictor.*", "regression_layer.*", "text_projection.*", "visual_projection.*",
        "audio_projection.*"), LINEAR_PARTS),
    Names("output head", "alone", ("fc.weight", "fc_out.weight", "out.weight", "final.weight", "head.*"), LINEAR_PARTS),
    Names("embedding", "anywhere", ("*embed*", "emb.*", "*_emb.*", "embd.*", "*_embd.*", "wte.*", "wpe.*", "lut.weight",
                                    "codebook.weight", "*relative_attention_bias*", "rel_pos*")),
    Names("embedding", "outside of layers", ("shared.weight",), LINEAR_PARTS),
    Names("embedding", "alone", ("encoder.weight",)),
)


def why_kept(name):
    """Why a weight of this name stays as it is, such as "router (gate.*)", or None."""
    inner = _within_layer(name)
    for what, where, patterns, but in KEPT:
        if where != "anywhere" and inner != name:
            continue
        for pattern in patterns:
            if fnmatchcase(inner, pattern) or where != "alone" and fnmatchcase(inner, f"*.{pattern}"):
                if not any(fnmatchcase(name, other) for other in but):
                    return f"{what} ({pattern})"
    return None


def listed():
    """All patterns, for people to read."""
    return "; ".join(f"{what}, {where}: {' '.join(patterns)}" for what, where, patterns, _ in KEPT)


def _within_layer(name):
    """What follows the last number of a layer in a name: all of it outside of layers."""
    *parts, leaf = name.split(".")
    end = len(parts)
    while end and NUMBER.fullmatch(parts[end - 1]):
        end -= 1
    start = max((i + 1 for i in range(end) if NUMBER.fullmatch(parts[i])), default=0)
    return ".".join([*parts[start:], leaf])
