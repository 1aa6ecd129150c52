// Which row of a ubatch is which token of which sequence. What cannot be said for certain is sequence -1.
#ifndef RING2_LLAMA_ROWS_H
#define RING2_LLAMA_ROWS_H

#include <cstdint>
#include <vector>

#include "engine.h"

namespace ring2_llama {

// Remembers what llama_decode was given. False when its rows cannot be told apart: embeddings as input.
bool read_batch(Engine &engine, const Batch &batch);

// Fills the ubatch's rows and outputs from the graph's own inputs. False when they cannot be matched.
bool match_rows(Engine &engine);

std::vector<Group> group_rows(const std::vector<BatchRow> &rows, uint32_t *uncertain);

// Elements of an input tensor, wherever its memory is.
std::vector<int32_t> read_int32(const Facts &facts, const Tensor *tensor);
std::vector<int64_t> read_int64(const Facts &facts, const Tensor *tensor);
// The tensor's bytes in this process's memory: its own, or those that were copied into *copy.
const void *host_bytes(const Facts &facts, const Tensor *tensor, std::vector<uint8_t> *copy);
size_t spanned_bytes(const Tensor *tensor, size_t element_bytes);

}  // namespace ring2_llama

#endif
