/**
 * Serves one raw file on a Unix socket until it is told to end: the server side of nbd-untracked.ts, in a process of
 * its own.
 */
import { hostClock } from '../src/disk/host-clock.ts';
import { openRawDisk } from '../src/disk/raw-disk.ts';
import { diskExport } from '../src/nbd/export.ts';
import { NbdServer } from '../src/nbd/server.ts';

const [path, socket] = process.argv.slice(2);
if (path === undefined || socket === undefined) throw new Error('usage: nbd-serve.ts FILE SOCKET');
const disk = await openRawDisk(path, { readOnly: false, lock: false });
const served = diskExport('', disk, { promptWrites: hostClock });
const say = (fields: object, message: string) => console.error(message, JSON.stringify(fields));
const log = { debug: () => undefined, info: () => undefined, warn: say, error: say };
const exports = (name: string) => (name === '' ? served : undefined);
const server = new NbdServer({ exports, list: () => [''], clock: hostClock, log });
await server.listenUnix(socket);
process.once('SIGTERM', () => {
  void server.close().then(() => disk.close());
});
console.log('ready');
