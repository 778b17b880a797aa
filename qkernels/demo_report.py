"""The demo's figures as text for a reader."""

from __future__ import annotations

from .demo_linears import DYNAMIC_INT8, Scheme


def report(figures: dict) -> str:
    """Everything that is printed at the end."""
    n = figures["sentences"]
    lines = [
        f"{figures['model']}: {n} sentence{'s' * (n > 1)} from {figures['source']}, "
        f"{figures['tokens'] / n:.1f} tokens each on average",
        f"kernels: {figures['isa']}; one thread; batches of {figures['batch_size']}; "
        f"median of {figures['repeat']}",
    ]
    if "calibration" in figures:
        seen = figures["calibration"]
        lines.append(f"calibrated with {seen['sentences']} other sentences in {seen['seconds']:.1f} s")
    lines += _table(figures) if "compared" in figures else _side_by_side(figures)
    return "\n".join(lines)


def _side_by_side(figures: dict) -> list[str]:
    """float32 and one way of quantizing."""
    scheme = Scheme(**figures["scheme"])
    f32, quantized = figures["float32"], figures[scheme.weights]

    def row(label: str, a: float, b: float, unit: str, better: str, worse: str) -> str:
        ratio = f"{a / b:>8.2f}x {better}" if a >= b else f"{b / a:>8.2f}x {worse}"
        return f"{label:<34}{a:>10.2f} {unit}{b:>10.2f} {unit}{ratio}"

    lines = [
        f"weights: {scheme}, {quantized['bits_per_weight']:.2f} bits each, "
        + (f"from {figures['file']}" if "file" in figures else "quantized")
        + f" in {quantized['quantization_seconds']:.1f} s; activations: {_activations(scheme)}",
        "",
        f"{'':<34}{'float32':>13}{scheme.weights:>13}",
        f"{'':<34}{'NumPy':>13}{'qkernels':>13}",
        row(f"weights of {figures['linear_layers']} linear layers",
            f32["weight_bytes"] / 1e6, quantized["weight_bytes"] / 1e6, "MB", "smaller", "larger"),
    ]
    for label, key in (
        ("time a sentence, linear layers", "linear_ms_per_sentence"),
        ("time a sentence, whole encoder", "total_ms_per_sentence"),
    ):
        lines.append(row(label, f32[key], quantized[key], "ms", "faster", "slower"))

    agreement = figures["nearest_neighbor_agreement"]
    lines += [
        "",
        f"{'cosine to float32':<34}  mean {figures['cosine_mean']:.4f}, "
        f"worst {figures['cosine_worst']:.4f}",
        f"{'nearest-neighbor agreement':<34}  "
        + ("needs two sentences" if agreement is None else f"{100 * agreement:.1f} %"),
    ]
    if "query" in figures:
        lines += ["", f"most similar to: {figures['query']}"]
        lines += [f"  {hit['cosine']:6.3f}  {hit['sentence']}" for hit in figures["most_similar"]]
    return lines


def _table(figures: dict) -> list[str]:
    """A row for each way of quantizing."""
    f32 = figures["float32"]
    lines = [
        f"float32 NumPy: {f32['weight_bytes'] / 1e6:.2f} MB of weights in {figures['linear_layers']} linear layers, "
        f"{f32['linear_ms_per_sentence']:.2f} ms a sentence in them",
        "",
        f"{'':<26}{'':<13}{'bits per':>10}{'size,':>9}{'linear':>9}{'mean':>9}{'neighbors':>11}",
        f"{'weights':<26}{'activations':<13}{'weight':>10}{'MB':>9}{'speed':>9}{'cosine':>9}{'agree':>11}",
    ]
    for row in figures["compared"]:
        scheme = Scheme(**row["scheme"])
        speed = f32["linear_ms_per_sentence"] / row["linear_ms_per_sentence"]
        agreement = row["nearest_neighbor_agreement"]
        lines.append(
            f"{scheme!s:<26}{_activations(scheme):<13}{row['bits_per_weight']:>10.2f}"
            f"{row['weight_bytes'] / 1e6:>9.2f}{speed:>8.2f}x{row['cosine_mean']:>9.4f}"
            + ("n/a".rjust(11) if agreement is None else f"{100 * agreement:>9.1f} %"))
    return [
        *lines, "",
        "g32: every 32 weights share a scale; without it, those of an output channel. Rotated: by random signs and a",
        "Hadamard transform, activations alike. Methods that know what inputs are like: gptq, awq, ldlq; static",
        "activations have a range that is known beforehand. Activations in uint8 have zero points, those in int8",
        "none. Speed is that of the linear layers, cosine and neighbors are those of the sentences' embeddings, all",
        "against float32 NumPy.",
    ]


def _activations(scheme: Scheme) -> str:
    if scheme.static:
        return "static uint8"
    return "uint8" if scheme == DYNAMIC_INT8 else scheme.activations
