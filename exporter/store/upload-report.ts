/**
 * How the uploads stand, for the metrics and for the health document.
 */

import type { UploadPoints } from '../telemetry/metric-points.ts'
import type { Uploader } from './uploader.ts'

/** Nothing where the store is no bucket. */
export function uploadPoints(
  uploader: Uploader | null,
  waitingBytesMax: number,
): { readonly uploads?: UploadPoints } {
  if (uploader === null) return {}
  const { uploadedFiles, uploadedBytes, failures, waitingFiles, waitingBytes } = uploader.status()
  return {
    uploads: {
      files: uploadedFiles,
      bytes: uploadedBytes,
      failures,
      waitingFiles,
      waitingBytes,
      waitingBytesMax,
    },
  }
}

/** One check of the health document: not ok while the last attempt has failed. */
export function uploadCheck(uploader: Uploader | null, waitingBytesMax: number) {
  const name = 'upload'
  if (uploader === null) return { name, ok: true, detail: 'not needed' }
  const { failing, waitingFiles, waitingBytes } = uploader.status()
  const waiting = `${waitingFiles} files wait, ${waitingBytes} of at most ${waitingBytesMax} bytes`
  if (failing !== null) return { name, ok: false, detail: `${waiting}: ${failing.message}` }
  return { name, ok: true, detail: waitingFiles === 0 ? 'up to date' : waiting }
}
