/** `ring2-exporter llama-proxy`: names the requests of an unmodified llama-server, until SIGTERM. */
import { once } from 'node:events'
import type { Command } from 'commander'
import { createLlamaProxy } from '../llama/proxy.ts'
import { type ExitCode, exitCodes, tell } from './outcome.ts'

interface LlamaProxyOptions {
  readonly upstream: string
  readonly control: string
  readonly host: string
  readonly port: string
}

export function llamaProxyCommand(command: Command): void {
  command
    .description('join requests of a llama-server with their traces: a proxy before it')
    .requiredOption('--upstream <url>', 'where llama-server listens')
    .requiredOption('--control <path>', 'the socket that RING2_LLAMA_CONTROL names')
    .option('--host <address>', 'where to listen', '127.0.0.1')
    .option('--port <number>', 'where to listen; 0 chooses a free port', '8090')
    .action(async (options: LlamaProxyOptions) => {
      process.exitCode = await proxy(options)
    })
}

async function proxy(options: LlamaProxyOptions): Promise<ExitCode> {
  const port = Number(options.port)
  if (!URL.canParse(options.upstream) || !/^\d{1,5}$/.test(options.port) || port > 65_535) {
    tell(
      `expected --upstream as a URL and --port from 0 to 65535, got ${options.upstream} and ${options.port}`,
    )
    return exitCodes.usage
  }
  const server = createLlamaProxy({ ...options, warn: tell })
  const ended = Promise.withResolvers<ExitCode>()
  server.once('error', (error) => {
    tell(`cannot listen on ${options.host}:${port}: ${error.message}`)
    ended.resolve(exitCodes.failed)
  })
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.once(signal, () => ended.resolve(exitCodes.done))
  }
  server.listen(port, options.host, () => {
    const address = server.address()
    const listening = typeof address === 'object' && address !== null ? address.port : port
    tell(`llama-proxy listens on http://${options.host}:${listening}`)
  })
  const code = await ended.promise
  if (!server.listening) return code
  server.close()
  server.closeAllConnections()
  await once(server, 'close')
  return code
}
