/** The program of the thread that makes the catalogue's file again (compact.ts). */
import { parentPort, workerData } from 'node:worker_threads'
import { asRing2Error } from '../errors.ts'
import { type CompactReport, compactNow } from './compact.ts'

const port = parentPort
if (port === null) throw new Error('compact-worker.ts runs in a worker thread')

port.postMessage(run())

function run(): CompactReport {
  try {
    compactNow(String(workerData))
    return null
  } catch (error) {
    const { code, expected, actual, action } = asRing2Error(error)
    return { code, expected, actual, action }
  }
}
