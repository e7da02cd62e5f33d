import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashFiles } from '../../../test/formats/crash-files.ts';
import { crashModes, snapshotOf, StampedRun } from '../../../test/formats/crash-run.ts';
import { LONG, SEED, Seeded } from '../../../test/formats/seeded.ts';
import { createVhdx } from './create.ts';
import { openVhdx } from './open.ts';

const MIB = 1 << 20;

for (const [variant, logicalSectorSize] of [
  ['dynamic', 512],
  ['differencing', 512],
  ['differencing', 4096],
] as const) {
  test(`a ${variant} VHDX with sectors of ${logicalSectorSize} bytes survives power cuts (SEED=${SEED})`, async () => {
    const random = new Seeded(SEED);
    const files = new CrashFiles();
    const path = variant === 'dynamic' ? '/d/0.vhdx' : '/d/1.avhdx';
    await createVhdx('/d/0.vhdx', files, { variant: 'dynamic', size: 4 * MIB, blockSize: MIB, logicalSectorSize, random });
    let stamps: Uint32Array | undefined;
    if (variant === 'differencing') {
      const base = await openVhdx('/d/0.vhdx', files, { readOnly: false, random });
      const run = new StampedRun(base, files);
      await run.run(random, 15, 1000);
      stamps = run.stamps;
      await base.close();
      await createVhdx(path, files, { variant, parent: '/d/0.vhdx', blockSize: MIB, random });
    }
    const before = snapshotOf(files);
    files.trace.length = 0;
    const disk = await openVhdx(path, files, { readOnly: false, random });
    const run = new StampedRun(disk, files, stamps);
    await run.run(random, 50);
    await disk.close();
    let points = 0;
    for (const crash of files.crashes(before, crashModes(random))) {
      points += 1;
      if (!LONG && random.next() < 0.5) continue; // Each seed tries others of the same cuts.
      const what = `cut at ${crash.at} (${crash.mode})`;
      const reader = await openVhdx(path, crash.files, { readOnly: true, random });
      await run.assertConsistent(reader, crash.mark, what);
      await reader.close();
      if (points % 3 !== 0) continue;
      const writer = await openVhdx(path, crash.files, { readOnly: false, random });
      await run.assertConsistent(writer, crash.mark, `${what}, opened for writing`);
      await writer.write(Buffer.alloc(700, 1), 1_000_000);
      await writer.close();
      const again = await openVhdx(path, crash.files, { readOnly: true, random });
      const seen = Buffer.alloc(700);
      await again.read(seen, 1_000_000);
      assert.deepEqual(seen, Buffer.alloc(700, 1));
      await again.close();
    }
    assert.ok(points > 60, `${points} cuts`);
  });
}
