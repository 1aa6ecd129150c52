/** Deletes a trace of a directory store and kills itself at the n-th change: root, trace id, n. */

import { openCatalog } from '../../../exporter/catalog/catalog.ts'
import { deleteTrace } from '../../../exporter/retention/delete-trace.ts'
import { createDirectoryStore } from '../../../exporter/store/fs.ts'
import { locateStore } from '../../../exporter/store/location.ts'

const [root = '', traceId = '', killAt = '0'] = process.argv.slice(2)
const location = locateStore(root, null)
const store = createDirectoryStore(root)
const catalog = openCatalog(location.catalog)
let changes = 0

function change(): void {
  changes += 1
  if (changes === Number(killAt)) process.kill(process.pid, 'SIGKILL')
}

await deleteTrace(
  {
    location,
    bucket: null,
    fsync: false,
    settleMillis: 0,
    store: {
      ...store,
      size: (key) => {
        change()
        return store.size(key)
      },
      delete: (key) => {
        change()
        return store.delete(key)
      },
    },
    catalog: {
      ...catalog,
      add: (description) => {
        change()
        catalog.add(description)
        change()
      },
    },
  },
  traceId,
  null,
)
