import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')

/**
 * Free what JavaScript no longer uses, now
 */
export const collectGarbage = runInNewContext('gc') as () => void
