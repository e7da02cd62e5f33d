import { join } from 'node:path';
import { openDisk } from '../../src/disk/open-disk.ts';
import { hostFiles } from '../../src/disk/host-files.ts';
import { virtualDiskSuite } from '../conformance/virtual-disk.suite.ts';
import { temporaryFolder } from '../conformance/disk-programs.ts';
import { families } from './families.ts';
import { SEED, Seeded } from './seeded.ts';

const SIZE = 4 << 20;

/** The suite of all virtual disks, over each variant of each family in real files, through the door that everybody uses. */
for (const family of families(new Seeded(SEED))) {
  for (const variant of ['fixed', 'dynamic', 'differencing'] as const) {
    const make = async () => {
      const folder = await temporaryFolder();
      const at = (level: number) => join(folder.path, family.path(level).split('/').at(-1)!);
      await family.create(hostFiles, at(0), variant === 'fixed' ? 'fixed' : 'dynamic', SIZE);
      if (variant === 'differencing') {
        const base = await openDisk(at(0), { readOnly: false });
        await base.write(Buffer.alloc(SIZE / 2, 0xab), 0);
        await base.close();
        await family.createChild(hostFiles, at(1), at(0));
      }
      const path = variant === 'differencing' ? at(1) : at(0);
      const open = () => openDisk(path, { readOnly: false });
      return { disk: await open(), reopen: open, cleanup: () => folder.remove() };
    };
    const holes = variant === 'dynamic' || (variant === 'differencing' && family.name !== 'VHD');
    virtualDiskSuite(`a ${variant} ${family.name}`, make, { zeroMakesHoles: holes, runs: 10 });
  }
}
