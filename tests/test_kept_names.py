"""Routers, output heads and embeddings stay as they are by default; all linear layers inside of models do not."""

import checkpoint_cases as cases
import numpy as np
import pytest

from qkernels import kept_names
from qkernels.__main__ import main

pytestmark = pytest.mark.any_isa

# Names as published, or as the code of these models gives them; of modules, without ".weight".
ROUTERS = """
model.layers.0.block_sparse_moe.gate model.layers.3.mlp.gate model.layers.0.mlp.shared_expert_gate layers.9.ffn.gate
model.layers.0.mlp.router model.layers.0.feed_forward.router transformer.blocks.0.ffn.router.layer block.0.mlp.gate
model.layers.0.block_sparse_moe.router.layer model.layers.0.mlp.gate.wg encoder.block.1.layer.1.mlp.router.classifier
model.encoder.layers.3.ffn.router.classifier transformer.decoder_layer.0.router backbone.layers.1.mixer.gate
model.layers.0.feed_forward.gate model.layers.0.mlp.router.gate layers.0.gate model.layers.0.moe.gate
model.layers.0.router.proj model.layers.0.block_sparse_moe.primary_router encoder.layers.1.mlp.router.layer
model.layers.0.mlp.gate.gate_network.0 deepspeed_moe.gate.wg model.layers.0.altup.modality_router
model.layers.1.self_attention.experts.router.layer model.layers.5.mlp.router.classifier blk.0.ffn_gate_inp
blk.0.ffn_gate_inp_shexp thinker.model.layers.0.mlp.gate language_model.model.layers.0.mlp.text_moe.gate
decoder.layers.0.mlp.router decoder.layers.0.mlp.coefficient layers.0.moe.shared_experts_gate model.layers.0.moe_gate
layers.0.moe.gates.1 layers.2.moe.gating
"""
HEADS = """
lm_head lm_head.linear lm_head.dense lm_head.decoder language_model.lm_head decoder.lm_heads.0 lm_heads.3 output
language_model.output output_layer transformer.output_layer language_model.output_layer head head.fc head.1
head.decoder head.out heads.head heads.0 embed_out unembedding model.layers.61.shared_head.head mtp.0.head
model.transformer.ff_out classifier classifier.6 classifier.dense classifier.out_proj pre_classifier cls_classifier
score qa_outputs fc logits to_logits to_logits.1 generator.proj output_projection model.decoder.output_projection
proj_out cls.predictions.decoder cls.predictions.transform.dense cls.seq_relationship vocab_projector vocab_transform
lm_loss pred_layer.proj decoder generator_lm_head discriminator_predictions.dense sequence_summary.summary
multiple_choice_head.summary v_head.summary classification_head.dense classification_head.out_proj value_head itm_head
text_projection visual_projection text_projection.linear1 medusa_head.0.1 out_head talker.codec_head
class_labels_classifier bbox_predictor.layers.0 class_predictor decoder_pred contact_head.regression
start_logits.dense answer_head.logit_fc.3 final_layer.linear word_embeddings_for_head regression_layer head_dist.head
distillation_classifier ctc.ctc_lo decoder.output_proj final_proj generator codebook_heads.2 itm_score.fc
mlm_score.decoder ctc_proj audio_projection.linear1 fc_out out final
"""
EMBEDDINGS = """
model.embed_tokens transformer.wte transformer.wpe wte wpe transformer.embd.wte tok_embeddings model.tok_embeddings
transformer.word_embeddings transformer.embedding.word_embeddings embeddings.word_embeddings gpt_neox.embed_in emb
embeddings.position_embeddings embeddings.token_type_embeddings backbone.embeddings backbone.embedding shared
rwkv.embeddings model.layers.61.embed_tokens encoder.block.0.layer.0.SelfAttention.relative_attention_bias token_emb
model.shared vision_model.embeddings.position_embedding text_model.embeddings.token_embedding pos_emb time_emb embed.0
decoder.embed_tokens.2 model.decoder.embed_positions language_model.embedding.word_embeddings src_embed.0.lut encoder
model.embed_tokens_per_layer token_embd position_embd quantizer.quantizers.0.codebook encoder.layer.3.rel_pos_bias
y_embedder.embedding_table transformer.in_out_embed deberta.encoder.rel_embeddings query_embed
"""
LINEAR = """
model.layers.0.self_attn.q_proj model.layers.0.self_attn.k_proj model.layers.0.self_attn.o_proj layers.0.attention.wo
model.layers.0.mlp.gate_proj model.layers.0.mlp.gate_up_proj model.layers.0.mlp.down_proj transformer.h.0.mlp.c_fc
transformer.h.0.mlp.c_proj transformer.h.0.attn.c_attn transformer.h.0.mlp.fc_in transformer.h.0.mlp.fc_out
h.3.mlp.c_fc bert.encoder.layer.0.attention.self.query bert.encoder.layer.0.attention.output.dense
bert.encoder.layer.0.output.dense bert.encoder.layer.0.intermediate.dense
distilbert.transformer.layer.0.attention.out_lin encoder.layer.3.mlp.fc model.decoder.layers.0.self_attn.out_proj
model.decoder.layers.0.fc1 model.encoder.layers.0.fc2 layers.0.attn.Wqkv encoder.block.0.layer.0.SelfAttention.q
encoder.block.0.layer.1.DenseReluDense.wi_0 decoder.block.2.layer.2.DenseReluDense.wo
gpt_neox.layers.0.attention.query_key_value gpt_neox.layers.0.mlp.dense_4h_to_h blocks.0.attn.proj blocks.0.attn.qkv
blocks.0.mlp.fc1 visual.blocks.0.attn.proj vision_model.encoder.layers.0.mlp.fc2 vision_model.head.mlp.fc1
vision_model.head.attention.out_proj model.layers.0.mlp.experts.3.gate_proj layers.0.mlp.experts.7.w1 layers.1.mlp.Wo
model.layers.0.block_sparse_moe.experts.3.w2 model.layers.0.block_sparse_moe.experts.3.gate
model.layers.0.mlp.shared_expert.gate_proj model.layers.0.mlp.shared_experts.down_proj
model.layers.0.shared_mlp.output_linear backbone.layers.0.mixer.in_proj backbone.layers.0.mixer.out_proj
backbone.layers.0.mixer.x_proj blocks.0.att.gate rwkv.blocks.0.attention.gate rwkv.blocks.0.attention.output
blocks.0.att.output blocks.0.att.receptance blocks.0.ffn.key model.layers.0.self_attn.gate_proj
model.layers.0.self_attn.g_proj model.layers.0.self_attn.kv_a_proj_with_mqa model.layers.0.linear_attn.in_proj_qkvz
model.layers.0.linear_attn.out_proj transformer.decoder_layer.0.moe.linear_1
transformer.decoder_layer.0.multi_head_attention.linear model.transformer.blocks.0.ff_out
model.transformer.blocks.0.attn_out encoder.layers.0.self_attention.dense encoder.layer.0.mlp.gated_layers
transformer_blocks.0.attn1.to_out.0 transformer_blocks.0.ff.net.0.proj transformer_blocks.0.ff.net.2
single_transformer_blocks.4.proj_out down_blocks.1.attentions.0.proj_out down_blocks.0.resnets.0.time_emb_proj
model.layers.0.per_layer_input_gate embedder.encoder.layer.0.attention.self.query embedding_model.layers.0.mlp.up_proj
blk.0.ffn_gate blk.0.attn_output layers.0.fc layers.0.output layers.0.decoder encoder.layers_3.attention.output
layers.0.attn.output_proj mlp.fc attn.proj self_attn.output_proj attention.output multi_modal_projector.linear_1
visual.merger.mlp.0 mm_projector.2 pooler.dense decoder.layers.0.encoder_attn.out_proj
transformer.resblocks.0.mlp.c_fc transformer.layers.0.ffn.proj_2 encoder.blocks.0.mlp.0
model.layers.0.self_attn.language_expert_dense classifier.encoder.layers.0.mlp.fc1 generator.layers.0.proj
head.blocks.0.mlp.fc1 model.layers.0.mamba.in_proj model.layers.0.residual_mlp.w3
"""


@pytest.mark.parametrize("what, names", [("router", ROUTERS), ("output head", HEADS), ("embedding", EMBEDDINGS)])
def test_kept(what, names):
    found = {name: kept_names.why_kept(f"{name}.weight") for name in names.split()}
    assert {name: why for name, why in found.items() if why is None or not why.startswith(f"{what} (")} == {}


def test_quantized():
    found = {name: kept_names.why_kept(f"{name}.weight") for name in LINEAR.split()}
    assert {name: why for name, why in found.items() if why is not None} == {}


def test_every_pattern_is_tested():
    """Each is what keeps one of the names above."""
    whys = {kept_names.why_kept(f"{name}.weight") for name in (ROUTERS + HEADS + EMBEDDINGS).split()}
    for kept in kept_names.KEPT:
        assert {f"{kept.what} ({pattern})" for pattern in kept.patterns} <= whys


def test_dry_run(tmp_path, capsys):
    """It says why; --include asks for all the same; --exclude adds to them."""
    names = ["model.layers.0.mlp.gate.weight", "lm_head.weight", "wte.weight", "model.layers.0.mlp.up_proj.weight"]
    model = cases.write(tmp_path / "m.safetensors", {name: np.ones((8, 32), np.float32) for name in names})

    def becoming(*arguments):
        assert main(["quantize", str(model), str(tmp_path / "out.safetensors"), "--dry-run", *arguments]) == 0
        return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}

    lines = becoming()
    for name, why in zip(names, ["router (gate.*)", "output head (*lm_head*)", "embedding (wte.*)"]):
        assert f"kept: {why} " in lines[name]
    assert "int4" in lines[names[3]]
    assert all("int4" in becoming("--include", "*.weight")[name] for name in names)
    assert "not included" in becoming("--include", "w[0].weight")["wte.weight"]
    lines = becoming("--exclude", "*up_proj*")
    assert "kept: excluded by *up_proj*" in lines[names[3]] and "kept: router" in lines[names[0]]


def test_names_with_brackets(tmp_path, capsys):
    """A name chooses itself, whatever its brackets mean as a pattern."""
    arrays = {f"w{i}.weight": np.ones((8, 32), np.float32) for i in ("[0]", "0")}
    model = cases.write(tmp_path / "m.safetensors", arrays)
    for option in ("--include", "--exclude"):
        assert main(["quantize", str(model), str(tmp_path / "out"), "--dry-run", option, "w[0].weight"]) == 0
        lines = capsys.readouterr().out.splitlines()[1:3]
        assert all(("int4" in line) == (option == "--include") for line in lines)
