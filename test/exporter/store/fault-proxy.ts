/**
 * A real HTTP proxy in front of the real S3 server that misbehaves as it is told: it answers errors
 * of its own, cuts connections, answers nothing, or is not there. It keeps what it was asked.
 */

import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Asked {
  readonly method: string
  /** Path and query. */
  readonly url: string
  readonly headers: IncomingHttpHeaders
}

export type Fault =
  /** Answers this itself, as S3 would. */
  | { readonly kind: 'answer'; readonly status: number; readonly code: string; retryAfter?: number }
  /** Closes the connection after so many bytes of the request's body have reached the server. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** Hands the request on, and closes the connection instead of answering. */
  | { readonly kind: 'mute' }
  /** Hands the request on, and closes the connection in the middle of the answer's body. */
  | { readonly kind: 'half-answer'; readonly bytes: number }
  /** Neither answers nor closes. */
  | { readonly kind: 'hang' }

/** What to do with a request; null passes it on. */
export type Behaviour = (asked: Asked) => Fault | null

export interface FaultProxy {
  readonly endpoint: string
  behave(behaviour: Behaviour): void
  /** Everything asked so far, also what was answered with an error. */
  asked(): readonly Asked[]
  /** Refuses connections, and ends those there are. */
  leave(): Promise<void>
  comeBack(): Promise<void>
  stop(): Promise<void>
}

const wellBehaved: Behaviour = () => null

export async function startFaultProxy(target: string): Promise<FaultProxy> {
  let behaviour = wellBehaved
  let asked: Asked[] = []
  const { hostname, port: targetPort } = new URL(target)

  function serve(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { method = '', url = '', headers } = incoming
    asked.push({ method, url, headers })
    const fault = behaviour({ method, url, headers })
    if (fault?.kind === 'answer') answer(incoming, outgoing, fault)
    else if (fault?.kind !== 'hang') forward(incoming, outgoing, fault)
  }

  function forward(incoming: IncomingMessage, outgoing: ServerResponse, fault: Fault | null) {
    const { method, url, headers } = incoming
    // The host header stays: the signature covers it.
    const onward = request({ hostname, port: targetPort, method, path: url, headers })
    const cut = (): void => {
      onward.destroy()
      incoming.socket.destroy()
    }
    onward.on('error', cut)
    onward.on('response', (response) => {
      if (fault?.kind === 'mute') {
        response.resume()
        response.on('end', cut)
        return
      }
      outgoing.writeHead(response.statusCode ?? 500, response.headers)
      if (fault?.kind !== 'half-answer') response.pipe(outgoing)
      else response.once('data', (chunk) => outgoing.write(chunk.subarray(0, fault.bytes), cut))
    })
    let passed = 0
    incoming.on('data', (chunk: Buffer) => {
      passed += chunk.length
      if (fault?.kind === 'cut' && passed >= fault.afterBytes) cut()
      else onward.write(chunk)
    })
    incoming.on('end', () => onward.end())
  }

  const server = createServer(serve)
  // A request is answered as slowly as the server behind it likes.
  server.requestTimeout = 0
  // What an SDK asks before it sends a body.
  server.on('checkContinue', (incoming, outgoing) => {
    outgoing.writeContinue()
    serve(incoming, outgoing)
  })
  const listen = (port: number) =>
    new Promise<void>((resolve) => void server.listen(port, '127.0.0.1', resolve))
  const leave = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  await listen(0)
  const { port } = server.address() as AddressInfo
  return {
    endpoint: `http://127.0.0.1:${port}`,
    behave: (next) => {
      behaviour = next
      asked = []
    },
    asked: () => asked,
    leave,
    comeBack: () => listen(port),
    stop: () => (server.listening ? leave() : Promise.resolve()),
  }
}

function answer(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  fault: Fault & { kind: 'answer' },
): void {
  // All of it is taken first, so that the answer is read and the connection stays usable.
  incoming.resume()
  incoming.on('end', () => {
    const after = fault.retryAfter === undefined ? {} : { 'retry-after': String(fault.retryAfter) }
    outgoing.writeHead(fault.status, { 'content-type': 'application/xml', ...after })
    const body = `<Error><Code>${fault.code}</Code><Message>by the proxy</Message></Error>`
    outgoing.end(incoming.method === 'HEAD' ? '' : body)
  })
}
