/**
 * Where the store is: a store URL and a state directory become the paths that the sink, the
 * catalogue, the uploader and the reader share. Pure, and cheap to send to a worker thread.
 *
 *   a path or file:///path     a directory; its state lies in {path}/.ring2
 *   s3://bucket/prefix?endpoint=URL&region=R&path_style=true&sse=aws:kms&sse_kms_key_id=ID
 *                              a bucket, with a state directory
 */

import { isAbsolute, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Ring2Error } from '../errors.ts'

export interface DirectoryTarget {
  readonly kind: 'directory'
  readonly root: string
}

export interface BucketTarget {
  readonly kind: 's3'
  readonly bucket: string
  /** Without slashes at its ends; may be empty. */
  readonly prefix: string
  /** Null for the endpoint of AWS. */
  readonly endpoint: string | null
  readonly region: string
  readonly pathStyle: boolean
  /** What the server is asked to encrypt objects with; null for the bucket's own default. */
  readonly encryption: Encryption | null
}

export interface Encryption {
  readonly algorithm: 'AES256' | 'aws:kms'
  /** Of `aws:kms`; null for the account's own key. */
  readonly kmsKeyId: string | null
}

export interface StoreLocation {
  readonly target: DirectoryTarget | BucketTarget
  /** Files being written, one folder per producer life. */
  readonly spool: string
  /** Files that wait for their upload; unused by a directory store. */
  readonly queue: string
  /** The catalogue's database file. */
  readonly catalog: string
}

const STATE_FOLDER = '.ring2'
const DEFAULT_REGION = 'us-east-1'
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/
const PARAMETERS = ['endpoint', 'region', 'path_style', 'sse', 'sse_kms_key_id']
const PREFIX = /^[A-Za-z0-9!_.()/-]*$/

/**
 * Throws RING2_E_CONFIG for a URL that names no store.
 *
 * @param stateDirectory of a bucket store; a directory store keeps its state beside its files, so
 *   that publishing a file is one rename.
 */
export function locateStore(url: string, stateDirectory: string | null): StoreLocation {
  const target = parseStoreUrl(url)
  if (target.kind === 'directory') return paths(target, join(target.root, STATE_FOLDER))
  if (stateDirectory === null) {
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: 'a state directory on local disk for a bucket store',
      actual: 'none',
      action: 'Name a local directory: files wait there until they are uploaded.',
    })
  }
  return paths(target, resolve(stateDirectory))
}

function paths(target: DirectoryTarget | BucketTarget, state: string): StoreLocation {
  return {
    target,
    spool: join(state, 'spool'),
    queue: join(state, 'queue'),
    catalog: join(state, 'catalog.sqlite'),
  }
}

function parseStoreUrl(url: string): DirectoryTarget | BucketTarget {
  if (url.startsWith('s3://')) return parseBucket(url)
  if (url.startsWith('file:')) return { kind: 'directory', root: filePath(url) }
  if (url === '' || /^[a-z][a-z0-9+.-]*:\/\//i.test(url)) throw invalid(url, 'a store URL')
  return { kind: 'directory', root: isAbsolute(url) ? url : resolve(url) }
}

function filePath(url: string): string {
  try {
    return fileURLToPath(url)
  } catch (error) {
    throw invalid(url, `a file URL (${error instanceof Error ? error.message : 'malformed'})`)
  }
}

function parseBucket(url: string): BucketTarget {
  // Parsing would resolve the dots silently, to another prefix than the one written.
  if (!URL.canParse(url) || /\/\.\.?(\/|\?|$)/.test(url)) throw invalid(url, 'an s3 URL without ..')
  const parsed = new URL(url)
  const bucket = parsed.hostname
  if (!BUCKET.test(bucket)) throw invalid(url, 'a bucket name of 3 to 63 of [a-z0-9.-]')
  if (parsed.username !== '' || parsed.password !== '') {
    throw invalid(url, 'no credentials in the URL; the AWS credential chain supplies them')
  }
  const prefix = decodeURIComponent(parsed.pathname).replaceAll(/^\/+|\/+$/g, '')
  if (!PREFIX.test(prefix) || prefix.split('/').includes('..')) {
    throw invalid(url, 'a prefix of [A-Za-z0-9!_.()/-] without ..')
  }
  for (const name of parsed.searchParams.keys()) {
    if (!PARAMETERS.includes(name)) {
      throw invalid(url, `only the parameters ${PARAMETERS.join(', ')}`)
    }
  }
  const endpoint = parsed.searchParams.get('endpoint')
  if (endpoint !== null && !/^https?:\/\//.test(endpoint)) {
    throw invalid(url, 'an endpoint that starts with http:// or https://')
  }
  const style = parsed.searchParams.get('path_style') ?? String(endpoint !== null)
  if (style !== 'true' && style !== 'false') throw invalid(url, 'path_style=true or false')
  return {
    kind: 's3',
    bucket,
    prefix,
    endpoint,
    region: parsed.searchParams.get('region') ?? process.env.AWS_REGION ?? DEFAULT_REGION,
    pathStyle: style === 'true',
    encryption: parseEncryption(url, parsed.searchParams),
  }
}

function parseEncryption(url: string, parameters: URLSearchParams): Encryption | null {
  const algorithm = parameters.get('sse')
  const kmsKeyId = parameters.get('sse_kms_key_id')
  if (kmsKeyId !== null && algorithm !== 'aws:kms') {
    throw invalid(url, 'sse=aws:kms where sse_kms_key_id is given')
  }
  if (algorithm === null) return null
  if (algorithm === 'AES256' || algorithm === 'aws:kms') return { algorithm, kmsKeyId }
  throw invalid(url, 'sse=AES256 or sse=aws:kms')
}

function invalid(url: string, expected: string): Ring2Error {
  return new Ring2Error('RING2_E_CONFIG', {
    expected,
    // Credentials that someone put into the URL must not reach a log.
    actual: JSON.stringify(url.replace(/\/\/[^/?]*@/, '//…@')),
    action: 'Use a directory, file:///directory, or s3://bucket/prefix?endpoint=URL&region=R.',
  })
}
