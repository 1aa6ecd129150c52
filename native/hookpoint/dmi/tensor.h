// A row of DMI's table as a tensor of the catalogue, or why it is none. Pure.
#ifndef RING2_DMI_TENSOR_H
#define RING2_DMI_TENSOR_H

#include "block.h"
#include "ring2.h"

namespace ring2::dmi {

// A hook by its selector (`resid_pre`) or by the name that DMI stores (`blocks.hook_resid_pre`);
// -1.
int hook_of(std::string_view act_name);
// `torch.half` and `torch.float16` alike; 0: none of ours.
uint32_t dtype_of(std::string_view name);

// Fills all but `step`: a batch of one, [1, …]. Returns what is wrong with the row, or nullptr.
const char *describe(const Row &row, uint64_t bytes, ring2_tensor *out);

}  // namespace ring2::dmi
#endif
