/**
 * Child process of bucket-settings.test.ts: uploads a queue until it is killed or has emptied it.
 *
 *   node uploader.child.ts STORE_URL STATE_DIRECTORY
 */

import { locateStore } from '../../../exporter/store/location.ts'
import { openStore } from '../../../exporter/store/open-store.ts'
import { createUploader } from '../../../exporter/store/uploader.ts'

const [url = '', state = ''] = process.argv.slice(2)
const location = locateStore(url, state)
const { bucket } = await openStore(location)
if (bucket === null) throw new Error('not a bucket')
const uploader = createUploader({
  queue: location.queue,
  bucket,
  onError: (error) => {
    throw error
  },
})
const left = await uploader.flush(60_000)
await uploader.stop()
bucket.close()
process.stdout.write(JSON.stringify({ left }))
