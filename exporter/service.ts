/**
 * The service: the only wiring. Configuration → drain worker → spans, metrics, store, API; and an
 * orderly shutdown that follows the data: drain, store, upload, export, close.
 */
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { type BaselineBook, nativeFacts } from '../collector/index.ts'
import { explorerFolder } from './api/explorer-page.ts'
import { buildServer } from './api/server.ts'
import { watchBaselines } from './baselines.ts'
import { createPolicyKeeper } from './capture-policy.ts'
import { knownFileOf, openCatalogOf } from './catalog/catalog.ts'
import { createTraceFinder } from './catalog/trace-finder.ts'
import { createTracePublisher } from './catalog/trace-publisher.ts'
import type { Config } from './config.ts'
import { errorText, Ring2Error, storeError, systemCode } from './errors.ts'
import { serviceLimits } from './limits.ts'
import type { Logger } from './logging.ts'
import { createParquetSource } from './parquet/parquet-source.ts'
import type { ContextBatch } from './pipeline/messages.ts'
import { type Pipeline, startPipeline } from './pipeline/pipeline.ts'
import { createRemovedCounts, startRetention } from './retention/background.ts'
import { deleteTrace } from './retention/delete-trace.ts'
import { readRules } from './retention/rules.ts'
import { ringsDocument } from './rings.ts'
import { createRanksOf } from './segment-ranks.ts'
import { createSentRequests } from './sent-requests.ts'
import type { StoreLocation } from './store/location.ts'
import { openStore } from './store/open-store.ts'
import { uploadCheck, uploadPoints } from './store/upload-report.ts'
import { createUploader } from './store/uploader.ts'
import { emptySnapshot } from './telemetry/metric-points.ts'
import { startTelemetry, type Telemetry } from './telemetry/sdk.ts'
import { catalogDoubt, storeLocation } from './tensors/open.ts'
import { createTensorReader } from './tensors/reader.ts'
import { createVocabularyReader } from './tensors/vocabularies.ts'
import { version } from './version.ts'

export interface ServiceOptions {
  readonly config: Config
  readonly logger: Logger
  /** The service cannot go on; `stop` is still to be called. */
  onDefect(error: Error): void
}

export interface Service {
  /** Where the API listens. */
  readonly url: string
  /** Ends in order; false when something captured could not be made safe or sent in time. */
  stop(): Promise<boolean>
}

export async function startService(options: ServiceOptions): Promise<Service> {
  const { config, logger } = options
  const location = storeLocation(config)
  prepareFolders(location)
  const native = nativeFacts()
  const { store, bucket } = await openStore(location)
  const catalog = openCatalogOf(location, config.store.fsync)
  const rules = readRules(config)
  const removed = createRemovedCounts()
  const deletion = { location, store, bucket, catalog, fsync: config.store.fsync }
  const running: { pipeline: Pipeline | null; url: string } = { pipeline: null, url: '' }

  const { public_url: publicUrl } = config.api
  const baseUrl = (): string => publicUrl?.replace(/\/+$/, '') ?? running.url

  const sent = createSentRequests(catalog, logger)
  const telemetry = startTelemetry({
    config,
    logger,
    version,
    snapshot: () => ({
      ...(running.pipeline?.latest() ?? emptySnapshot(Date.now() * 1000)),
      ...uploadPoints(uploader, config.store.spool_bytes_max),
      ...(rules === null ? {} : { removed: removed.counts() }),
      policyChanges: policy.changes(),
    }),
    apiUrl: baseUrl,
    onSent: (key) => sent.add(key),
  })
  const baselines = watchBaselines({
    path: config.verdict.baselines,
    logger,
    onChange: (book) => running.pipeline?.setBaselines(book),
  })
  const policy = createPolicyKeeper({
    config,
    location,
    logger,
    async onChange(next) {
      running.pipeline?.setPolicy(next)
      // The worker hears one after the other, so that an answer means that it has the policy.
      await running.pipeline?.refresh()
    },
  })
  const uploader =
    bucket === null
      ? null
      : createUploader({
          queue: location.queue,
          bucket,
          onError: (error, key) => logger.error({ key, error: error.toJSON() }, 'upload failed'),
        })
  const publisher =
    bucket === null
      ? null
      : createTracePublisher({
          catalog,
          bucket,
          queue: location.queue,
          onError: (error) =>
            logger.error({ error: error.toJSON() }, 'a trace index could not be written'),
        })
  const doubt = catalogDoubt(location, catalog)
  if (doubt !== null) logger.error({ error: doubt.toJSON() }, 'the catalogue lacks stored files')
  const ranksOf = createRanksOf(location.spool)
  const server = await buildServer({
    catalog,
    findTrace: createTraceFinder({ catalog, bucket }).find,
    reader: createTensorReader({
      catalog,
      source: createParquetSource(store, { knownFile: knownFileOf(catalog) }),
    }),
    vocabularies: createVocabularyReader(catalog, createParquetSource(store)),
    rings: () => ringsDocument(config.segments.directory, config.segments.names, ranksOf),
    metrics: async (accept) => {
      await running.pipeline?.refresh()
      return telemetry.metricsPage(accept)
    },
    health: () => {
      const upload = uploadCheck(uploader, config.store.spool_bytes_max)
      return health(running.pipeline, telemetry, upload, baselines.book())
    },
    policy,
    deleteTrace: (traceId, requestId) => deleteTrace(deletion, traceId, requestId),
    ...(config.telemetry.tap ? { tap: (batch) => addContexts(running.pipeline, batch) } : {}),
    token: config.api.token ?? null,
    explorer: explorerFolder,
    // As commands name it that run in another folder than this process.
    storeUrl: location.target.kind === 'directory' ? location.target.root : config.store.url,
    version,
    baseUrl,
    logger,
  })
  running.url = await listen(server, config.api)
  uploader?.start()
  publisher?.start()
  running.pipeline = await startPipeline({
    config,
    location,
    logger,
    baselines: baselines.book(),
    policy: policy.current(),
    onRequestEnd: (summary) => telemetry.spans.finish(summary),
    onDefect(error) {
      logger.fatal({ error: error.message }, 'the drain worker has ended')
      options.onDefect(error)
    },
  })
  const { url, pipeline } = running
  // It may have changed while the worker started.
  pipeline.setBaselines(baselines.book())
  pipeline.setPolicy(policy.current())
  const retention = startRetention({ context: deletion, rules, logger, onRemoved: removed.add })
  sent.start(telemetry.status().otlp.spans ? telemetry.spans : null)
  logger.info({ url, store: config.store.url, native: native.version, isa: native.isa }, 'ready')

  return {
    url,
    async stop() {
      baselines.stop()
      await retention.stop()
      const unflushed = await pipeline.stop()
      for (const segment of unflushed) {
        logger.error({ segment }, 'not stored: the data stays in the ring for the next start')
      }
      const left = (await uploader?.flush(serviceLimits.stopUploadMillis)) ?? 0
      await uploader?.stop()
      // A bucket that takes no files takes no indexes either; those stay due.
      if (left === 0) await publisher?.flush()
      await publisher?.stop()
      if (left > 0) logger.warn({ files: left }, 'not uploaded yet: the next start goes on')
      const delivered = await telemetry.flush(serviceLimits.stopTelemetryMillis)
      await telemetry.shutdown(serviceLimits.stopTelemetryMillis)
      await server.close()
      sent.stop()
      catalog.close()
      logger.info('stopped')
      return unflushed.length === 0 && left === 0 && delivered
    },
  }
}

/** False while nothing drains: whoever sends contexts comes again. */
function addContexts(pipeline: Pipeline | null, batch: ContextBatch): boolean {
  if (pipeline === null || pipeline.defect() !== null) return false
  pipeline.addContexts(batch)
  return true
}

type Server = Awaited<ReturnType<typeof buildServer>>

/** What the system refuses here, such as a port in use, is the user's to mend and no defect. */
async function listen(server: Server, api: Config['api']): Promise<string> {
  try {
    return await server.listen({ host: api.host, port: api.port })
  } catch (error) {
    if (systemCode(error) === null) throw error
    throw new Ring2Error('RING2_E_LISTEN', {
      expected: `to listen at ${api.host}, port ${api.port}`,
      actual: errorText(error),
      cause: error,
    })
  }
}

/** Fails now, with the path, and not at the first flush. */
function prepareFolders(location: StoreLocation): void {
  const folders = [location.spool, location.queue, dirname(location.catalog)]
  for (const folder of folders) {
    try {
      mkdirSync(folder, { recursive: true })
    } catch (error) {
      throw storeError('create', folder, error)
    }
  }
}

function baselinesText(models: number): string {
  if (models === 0) return 'none: requests are judged by the built-in bounds'
  return `read for ${models} ${models === 1 ? 'model' : 'models'}`
}

function health(
  pipeline: Pipeline | null,
  telemetry: Telemetry,
  upload: ReturnType<typeof uploadCheck>,
  { baselines, fault }: BaselineBook,
) {
  const defect = pipeline?.defect() ?? null
  const snapshot = pipeline?.latest()
  const failing = telemetry.status()
  const { failing: storeFailing = false, pendingRows = 0 } = snapshot?.store ?? {}
  return {
    alive: defect === null,
    ready: pipeline !== null && defect === null && !storeFailing,
    checks: [
      { name: 'drain', ok: defect === null, detail: defect?.message ?? 'running' },
      {
        name: 'store',
        ok: !storeFailing,
        detail: `${pendingRows} rows wait${storeFailing ? ', the last flush failed' : ''}`,
      },
      upload,
      {
        name: 'baselines',
        ok: fault === null,
        detail: fault ?? baselinesText(baselines.length),
      },
      {
        name: 'telemetry',
        ok: failing.spans.failing === null && failing.metrics.failing === null,
        detail: String(failing.spans.failing ?? failing.metrics.failing ?? failing.otlp.reason),
      },
    ],
  }
}
