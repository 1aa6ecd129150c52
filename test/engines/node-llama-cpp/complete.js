/**
 * One greedy completion by node-llama-cpp in this process: `complete.js MODEL PROMPT`. With
 * RING2_LLAMA_LIBRARY the request is named by the library's own functions; prints JSON.
 */
import koffi from 'koffi'
import { getLlama, LlamaCompletion, LlamaLogLevel } from 'node-llama-cpp'

const [modelPath, prompt] = process.argv.slice(2)
const path = process.env.RING2_LLAMA_LIBRARY
const library = path === undefined || path === '' ? null : koffi.load(path)
const name = library?.func('int ring2_llama_request(int32_t, const char *, const char *)')
const end = library?.func('void ring2_llama_request_end(int32_t)')

const llama = await getLlama({
  build: 'never',
  gpu: false,
  maxThreads: 1,
  logLevel: LlamaLogLevel.error,
})
const model = await llama.loadModel({ modelPath })
const context = await model.createContext({ contextSize: 512, threads: 1 })
const completion = new LlamaCompletion({ contextSequence: context.getSequence() })
const named = name?.(0, 'in-process', process.env.TRACEPARENT ?? null) ?? null
const text = await completion.generateCompletion(prompt, { maxTokens: 8, temperature: 0 })
end?.(0)
await context.dispose()
await llama.dispose()
process.stdout.write(JSON.stringify({ text, named }))
