/* Which ISAs are built and supported, and the kernel table for a chosen one: it starts scalar, and every
 * supported ISA up to the chosen one overwrites the slots for which it has a kernel. */
#include "kernels.h"
#include "cpu.h"

qk_kernel_table qk_kernels;
static int selected;

static const struct isa_row {
    const char *name;
    int built;
    uint32_t features;
    qk_b_layout b;
    qk_weight_layout weight;
} isa_rows[QK_ISA_COUNT] = {
#define LAYOUT(...) {__VA_ARGS__}
#define ISA(name, built, features, b, weight) {#name, built, features, b, weight},
#include "isa.def"
#undef ISA
#undef LAYOUT
};

static const char *const slot_names[QK_SLOT_COUNT] = {
#define X(slot) #slot,
    QK_SLOTS(X)
#undef X
};

static const char *const feature_names[QK_CPU_FEATURE_COUNT] = {
#define X(bit, name) name,
    QK_CPU_FEATURES(X)
#undef X
};

int qk_isa_count(void) { return QK_ISA_COUNT; }
const char *qk_isa_name(int isa) { return isa_rows[isa].name; }
int qk_isa_built(int isa) { return isa_rows[isa].built; }
qk_b_layout qk_b_layout_of_isa(int isa) { return isa_rows[isa].b; }
qk_weight_layout qk_weight_layout_of_isa(int isa) { return isa_rows[isa].weight; }

int qk_isa_emulated(int isa) { return (isa_rows[isa].features & QK_CPU_EMULATED) != 0; }

int qk_isa_supported(int isa)
{
    uint32_t needed = isa_rows[isa].features & ~(uint32_t)QK_CPU_EMULATED;
    return isa_rows[isa].built && (qk_cpu_probe() & needed) == needed;
}

void qk_select_isa(int isa)
{
    qk_kernel_table table;
#define K(slot, row_isa)                                                                                     \
    if (QK_ISA_##row_isa <= isa && qk_isa_supported(QK_ISA_##row_isa)) {                                     \
        table.slot = &qk_##slot##_##row_isa;                                                                 \
        table.isa_of[QK_SLOT_##slot] = QK_ISA_##row_isa;                                                     \
    }
#include "kernels.def"
#undef K
    qk_kernels = table;
    selected = isa;
}

int qk_selected_isa(void) { return selected; }

int qk_slot_count(void) { return QK_SLOT_COUNT; }
const char *qk_slot_name(int slot) { return slot_names[slot]; }
int qk_slot_isa(int slot) { return qk_kernels.isa_of[slot]; }

const char *qk_feature_name(int i) { return i < QK_CPU_FEATURE_COUNT ? feature_names[i] : NULL; }
int qk_feature_present(int i) { return qk_cpu_probe() >> i & 1; }
