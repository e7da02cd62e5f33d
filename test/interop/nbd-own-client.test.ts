import { openNbdDisk } from '../../src/disk/nbd/nbd-disk.ts';
import { virtualDiskSuite } from '../conformance/virtual-disk.suite.ts';
import { nbdRig } from './nbd-rig.suite.ts';

for (const prompt of [true, false]) {
  virtualDiskSuite(`a raw file behind our server, ${prompt ? 'prompt' : 'by the thread pool'}, and our client`, async () => {
    const rig = await nbdRig(4 * 2 ** 20, { prompt });
    const open = () => openNbdDisk(rig.uri, { readOnly: false });
    return { disk: await open(), reopen: open, cleanup: () => rig[Symbol.asyncDispose]() };
  }, { runs: 15 });
}
