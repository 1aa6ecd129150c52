/**
 * Files that are written and removed for a measurement, and memory that is ready for them.
 *
 * A virtual machine may give free memory back to its host, and taking a page again then costs ten
 * times what writing it does. So both sides of a pair first write and remove a file of this size,
 * which is not timed: what is measured is the writer and not the host.
 */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const MIB = 1024 * 1024

/** Makes the page cache have `bytes` that were used a moment ago. */
export function warmPageCache(directory: string, bytes: number): void {
  const path = join(directory, 'warm')
  plainWrite(path, new Uint8Array(MIB), bytes)
  rmSync(path)
}

/** Writes `bytes` to a new file in writes of 1 MiB, from one end of `source` to the other. */
export function plainWrite(path: string, source: Uint8Array, bytes: number): void {
  const fd = openSync(path, 'w')
  for (let done = 0; done < bytes; done += MIB) {
    const at = done % source.byteLength
    writeSync(fd, source, at, Math.min(MIB, bytes - done, source.byteLength - at))
  }
  closeSync(fd)
}

/** Seconds that the work takes. */
export function seconds(work: () => void): number {
  const start = performance.now()
  work()
  return (performance.now() - start) / 1000
}
