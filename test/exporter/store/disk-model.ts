/**
 * A disk that loses everything it was not made to keep: follows the calls of node:fs and knows, at
 * any moment, which files a power cut would leave, and with which bytes.
 *
 * The worst a file system may do is assumed: bytes are kept only by a sync of their file, names only
 * by a sync of their folder. Only the calls that the writers of the store make are followed.
 */

import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { dirname, resolve } from 'node:path'

interface Inode {
  /** Whether all bytes written so far were synced. */
  synced: boolean
}

export interface DiskModel {
  /** Whether the file, and all folders above it up to the root of the model, outlive a power cut. */
  keeps(path: string): boolean
  stop(): void
}

/** @param root a folder that was there before and is taken as kept. */
export function watchDisk(root: string): DiskModel {
  const files = new Map<string, Inode>()
  /** Names that a sync of their folder has made last, with the file that they named then. */
  const kept = new Map<string, Inode | 'folder'>()
  const folders = new Set<string>()
  const open = new Map<number, string>()
  const real = { ...fs }

  function syncOf(path: string): void {
    const file = files.get(path)
    if (file !== undefined) file.synced = true
    for (const known of [...kept.keys()]) {
      const gone = !files.has(known) && !folders.has(known)
      if (dirname(known) === path && gone) kept.delete(known)
    }
    for (const [name, inode] of files) if (dirname(name) === path) kept.set(name, inode)
    for (const name of folders) if (dirname(name) === path) kept.set(name, 'folder')
  }

  function written(path: string): void {
    const file = files.get(path)
    if (file === undefined) files.set(path, { synced: false })
    else file.synced = false
  }

  const followed = {
    openSync(...call: Parameters<typeof fs.openSync>) {
      const fd = real.openSync(...call)
      const path = resolve(String(call[0]))
      open.set(fd, path)
      if (call[1] === 'w') files.set(path, { synced: false })
      return fd
    },
    closeSync(fd: number) {
      real.closeSync(fd)
      open.delete(fd)
    },
    writevSync(...call: Parameters<typeof fs.writevSync>) {
      written(open.get(call[0]) ?? '')
      return real.writevSync(...call)
    },
    writeFileSync(...call: Parameters<typeof fs.writeFileSync>) {
      real.writeFileSync(...call)
      const [to, , options] = call
      const path = typeof to === 'number' ? (open.get(to) ?? '') : resolve(String(to))
      written(path)
      const flush = typeof options === 'object' && options !== null && options.flush === true
      const file = files.get(path)
      if (flush && file !== undefined) file.synced = true
    },
    fsyncSync(fd: number) {
      real.fsyncSync(fd)
      syncOf(open.get(fd) ?? '')
    },
    mkdirSync(...call: Parameters<typeof fs.mkdirSync>) {
      const first = real.mkdirSync(...call)
      let folder = resolve(String(call[0]))
      while (first !== undefined && folder.length >= first.length) {
        folders.add(folder)
        folder = dirname(folder)
      }
      return first
    },
    renameSync(...call: Parameters<typeof fs.renameSync>) {
      real.renameSync(...call)
      const [from, to] = call.map((path) => resolve(String(path))) as [string, string]
      const file = files.get(from)
      files.delete(from)
      if (file !== undefined) files.set(to, file)
    },
    rmSync(...call: Parameters<typeof fs.rmSync>) {
      real.rmSync(...call)
      files.delete(resolve(String(call[0])))
    },
  }
  Object.assign(fs, followed)
  syncBuiltinESMExports()

  return {
    keeps(path) {
      const file = kept.get(path)
      if (file === undefined || file === 'folder' || !file.synced) return false
      for (let above = dirname(path); above !== resolve(root); above = dirname(above)) {
        if (folders.has(above) && kept.get(above) !== 'folder') return false
      }
      return true
    },
    stop() {
      for (const name of Object.keys(followed) as (keyof typeof followed)[]) {
        Object.assign(fs, { [name]: real[name] })
      }
      syncBuiltinESMExports()
    },
  }
}
