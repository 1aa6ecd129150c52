/**
 * The demo: a chat service that runs a real model with ring2 attached, the exporter beside it, a client
 * that sends six requests, and a look at what came out. With the stack, the real Collector, Jaeger,
 * Prometheus and Alertmanager watch, and then one layer of the model is broken. Every number is computed
 * in this run.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { composeIsThere } from './compose.ts'
import { brokenConversations, demoFault } from './conversations.ts'
import type { DemoDocument, DemoRequest, Page, StackEvidence } from './document.ts'
import { type EngineName, engines } from './engines.ts'
import { readTrace } from './jaeger.ts'
import { linksOf, serverLinks } from './links.ts'
import { heldFolder, type Parts, startExporter, startReceiver, stopParts } from './parts.ts'
import type { Period } from './prometheus.ts'
import { receivedTrace } from './received.ts'
import { checkStored, comparedOf, healthyRequests } from './requests.ts'
import {
  breakAndMend,
  readEvidence,
  settle,
  startWatched,
  startWatchedByCompose,
  type Watched,
  type WatchedOptions,
} from './scenario.ts'
import { requireStackBinaries, stackBinaries } from './stack/binaries.ts'
import { drawTree } from './trace-tree.ts'

export interface DemoOptions {
  /** What runs the model. */
  readonly engine: EngineName
  /** Directory or s3:// URL of the store. */
  readonly store: string
  /** Whether the real servers watch. */
  readonly stack: boolean
  /** Whether the processes go on after the report. */
  readonly keep: boolean
  onProgress(text: string): void
}

export interface Demo {
  readonly document: DemoDocument
  readonly page: Page
  /** Ends what still runs; false when a process did not end in order. */
  stop(): Promise<boolean>
}

export async function runDemo(options: DemoOptions): Promise<Demo> {
  const began = performance.now()
  const parts: Parts = {
    processes: [],
    folder: mkdtempSync(join(tmpdir(), 'ring2-demo-')),
    segment: `demo-${process.pid}`,
  }
  // Tensors can reveal prompts, so they go, however the demo ends; logs stay for somebody to read.
  process.once('exit', () => {
    rmSync(heldFolder(parts), { recursive: true, force: true })
    if (existsSync(parts.folder)) options.onProgress(`logs of the demo stay in ${parts.folder}`)
  })
  let watched: Watched | undefined
  const stop = async (failed = false): Promise<boolean> => {
    const ended =
      watched === undefined ? await stopParts(parts, options.onProgress) : await watched.stop()
    const orderly = ended && !failed
    rmSync(orderly ? parts.folder : heldFolder(parts), { recursive: true, force: true })
    return orderly
  }
  const show = async (): Promise<{ document: DemoDocument; page: Page }> => {
    if (!options.stack) return showPlain(options, parts, began)
    watched = await startServersAndModel({ ...options, engine: engines[options.engine], parts })
    return showWatched(options, watched, began)
  }
  try {
    const { document, page } = await show()
    if (options.keep) return { document: { ...document, links: page.links }, page, stop }
    const orderly = await stop()
    return { document, page: { ...page, running: false }, stop: async () => orderly }
  } catch (error) {
    await stop(true)
    throw error
  }
}

/** The servers' own programs where they have been built, else containers, where docker runs. */
async function startServersAndModel(options: WatchedOptions): Promise<Watched> {
  const binaries = stackBinaries()
  if (binaries === null && (await composeIsThere())) return startWatchedByCompose(options)
  return startWatched(options, binaries ?? requireStackBinaries())
}

/** A Collector of one's own when one is configured, else a receiver that lives as long as the demo. */
async function receiverFor(parts: Parts): Promise<{ endpoint: string; file: string | null }> {
  const configured = process.env.OTEL_EXPORTER_OTLP_ENDPOINT
  if (configured !== undefined && configured !== '') return { endpoint: configured, file: null }
  return startReceiver(parts)
}

async function showPlain(options: DemoOptions, parts: Parts, began: number) {
  const { onProgress, store } = options
  const engine = engines[options.engine]
  onProgress('starting the exporter …')
  const { endpoint, file } = await receiverFor(parts)
  const api = await startExporter(parts, { store, endpoint })
  onProgress(`starting ${engine.title} …`)
  const { address, ask } = await engine.start(parts, { endpoint, allowFaults: options.keep })
  const { requests, ...ends } = await healthyRequests({ ask, api }, onProgress)
  const shown = comparedOf(ends, engine.tolerance)
  const checked = await checkStored(parts, { api }, shown, layersOf(requests), engine.tolerance)
  const seconds = (performance.now() - began) / 1000
  const document: DemoDocument = { requests, ...checked, store, seconds }
  const traceLines =
    file === null ? [] : drawTree(await receivedTrace(file, shown.traceId, shown.ancestry))
  const links = linksOf({ api, service: address }, endpoint, shown.traceId, engine)
  return { document, page: { document, shown: shown.traceId, traceLines, links, running: true } }
}

function layersOf(requests: readonly DemoRequest[]): number {
  return requests.at(-1)?.norms.length ?? 0
}

async function breakOneLayer(watched: Watched, onProgress: (text: string) => void) {
  onProgress(`adding noise to layer ${demoFault.layer}, and asking again …`)
  return breakAndMend(watched, demoFault, brokenConversations, onProgress)
}

/** A demo that the servers watched. */
export interface WatchedDemo {
  readonly document: DemoDocument & StackEvidence
  readonly page: Page
  /** When the model was healthy, in seconds of Unix time. */
  readonly healthy: Period
}

/** The healthy part, the broken part where the engine has one, and what the servers have of both. */
export async function showWatched(
  options: Pick<DemoOptions, 'store' | 'engine' | 'onProgress'>,
  watched: Watched,
  began: number,
): Promise<WatchedDemo> {
  const { onProgress, store } = options
  const engine = engines[options.engine]
  const from = Date.now() / 1000
  const before = await healthyRequests(watched, onProgress)
  onProgress('waiting until Prometheus has counted them …')
  const healthy = { from, to: await settle(watched, before.requests.length) }
  const broken = engine.breakable ? await breakOneLayer(watched, onProgress) : null
  onProgress('reading back what the servers have …')
  const looked = broken?.worst ?? comparedOf(before, engine.tolerance)
  const shown = looked.traceId
  const evidence = await readEvidence(watched, looked, healthy)
  const requests = [...before.requests, ...(broken?.requests ?? [])]
  const { parts } = watched
  const document = {
    ...(await checkStored(parts, watched, looked, layersOf(requests), engine.tolerance)),
    requests,
    store,
    seconds: (performance.now() - began) / 1000,
    ...evidence,
  }
  const { urls } = watched.stack
  const traceLines = drawTree(await readTrace(urls.jaeger, shown))
  const period = { from, to: Date.now() / 1000 }
  const servers = serverLinks(urls, shown, period, watched.webhook === null)
  const links = { ...linksOf(watched, urls.otlpGrpc, shown, engine), servers }
  const page: Page = { document, shown, traceLines, links, running: true }
  return { document, page, healthy }
}
