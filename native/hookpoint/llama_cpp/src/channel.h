// A Unix socket over which requests are named, and the thread behind it, which also beats the segments'
// hearts, ends requests that have gone quiet and sends the texts of token ids.
#ifndef RING2_LLAMA_CHANNEL_H
#define RING2_LLAMA_CHANNEL_H

namespace ring2_llama {

// Once; a socket that cannot be made is one log line.
void start_housekeeping();

}  // namespace ring2_llama

#endif
