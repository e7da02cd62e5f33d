import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashFiles } from '../../../test/formats/crash-files.ts';
import { crashModes, snapshotOf, StampedRun } from '../../../test/formats/crash-run.ts';
import { clock, LONG, SEED, Seeded } from '../../../test/formats/seeded.ts';
import { createVhd } from './create.ts';
import { openVhd } from './open.ts';

const MIB = 1 << 20;

for (const variant of ['dynamic', 'differencing'] as const) {
  test(`a ${variant} VHD survives power cuts (SEED=${SEED})`, async () => {
    const random = new Seeded(SEED);
    const files = new CrashFiles();
    const path = variant === 'dynamic' ? '/d/0.vhd' : '/d/1.avhd';
    await createVhd('/d/0.vhd', files, { variant: 'dynamic', size: 3 * MIB, blockSize: 128 * 1024, random, clock });
    let stamps: Uint32Array | undefined;
    if (variant === 'differencing') {
      const base = await openVhd('/d/0.vhd', files, { readOnly: false });
      const run = new StampedRun(base, files);
      await run.run(random, 15, 1000);
      stamps = run.stamps;
      await base.close();
      await createVhd(path, files, { variant, parent: '/d/0.vhd', blockSize: 256 * 1024, random, clock });
    }
    const before = snapshotOf(files);
    files.trace.length = 0;
    const disk = await openVhd(path, files, { readOnly: false });
    const run = new StampedRun(disk, files, stamps);
    await run.run(random, 50);
    await disk.close();
    let points = 0;
    for (const crash of files.crashes(before, crashModes(random))) {
      points += 1;
      if (!LONG && random.next() < 0.5) continue; // Each seed tries others of the same cuts.
      const what = `cut at ${crash.at} (${crash.mode})`;
      const reader = await openVhd(path, crash.files, { readOnly: true });
      await run.assertConsistent(reader, crash.mark, what);
      await reader.close();
      if (points % 3 !== 0) continue;
      const writer = await openVhd(path, crash.files, { readOnly: false });
      await run.assertConsistent(writer, crash.mark, `${what}, opened for writing`);
      await writer.write(Buffer.alloc(700, 1), 1_000_000);
      await writer.close();
      const again = await openVhd(path, crash.files, { readOnly: true });
      const seen = Buffer.alloc(700);
      await again.read(seen, 1_000_000);
      assert.deepEqual(seen, Buffer.alloc(700, 1));
      await again.close();
    }
    assert.ok(points > 60, `${points} cuts`);
  });
}
