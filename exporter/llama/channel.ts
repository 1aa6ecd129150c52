/**
 * The socket of the capture library in llama.cpp (RING2_LLAMA_CONTROL): names the request of a slot.
 *
 * A connection for each message. Words that nobody took are an answer, never an exception: the engine
 * serves with and without a name.
 */
import { connect } from 'node:net'

const answerMillis = 2000

/** Null when the library has taken the words; else why not. */
export function tellLibrary(socket: string, words: string): Promise<string | null> {
  return new Promise((resolve) => {
    const connection = connect(socket)
    let answer = ''
    const settle = (problem: string | null): void => {
      connection.destroy()
      resolve(problem)
    }
    connection.setTimeout(answerMillis, () => settle(`no answer within ${answerMillis} ms`))
    connection.once('error', (error) => settle(error.message))
    connection.once('close', () => settle('the connection was closed'))
    connection.on('data', (bytes) => {
      answer += bytes.toString('utf8')
      if (!answer.includes('\n')) return
      settle(answer.startsWith('ok') ? null : answer.trim())
    })
    connection.write(`${words}\n`)
  })
}
