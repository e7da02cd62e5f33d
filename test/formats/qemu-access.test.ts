import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeFooter } from '../../src/disk/vhd/footer.ts';
import { inspectVhd } from '../../src/disk/vhd/vhd-image.ts';
import { qemuFormatOf } from '../../src/disk/vhdx/qemu-access.ts';
import { CrashFiles } from './crash-files.ts';
import { families } from './families.ts';
import { Seeded } from './seeded.ts';

for (const family of families(new Seeded(7))) {
  const format = family.name === 'VHD' ? 'vhd' : 'vhdx';
  test(`QEMU may read a ${family.name} with children, not write it, and not open the child`, async () => {
    const files = new CrashFiles();
    await family.create(files, family.path(0), 'dynamic', 1 << 20);
    assert.equal(await qemuFormatOf(family.path(0), format, files, { write: true }), format === 'vhd' ? 'vpc' : 'vhdx');
    await family.createChild(files, family.path(1), family.path(0));
    await qemuFormatOf(family.path(0), format, files, { write: false });
    const refused = { code: 'DISK_NOT_FOR_QEMU' };
    await assert.rejects(qemuFormatOf(family.path(0), format, files, { write: true }), { ...refused, message: /parent of/ });
    await assert.rejects(qemuFormatOf(family.path(1), format, files, { write: false }), {
      ...refused,
      message: /differencing/,
    });
  });
}

test('QEMU may not open a VHDX whose log has to be replayed, nor a VHD of which it takes another size', async () => {
  const files = new CrashFiles();
  const [vhd, vhdx] = families(new Seeded(8));
  await vhdx!.create(files, '/d/a.vhdx', 'dynamic', 4 << 20);
  const disk = await vhdx!.open(files, '/d/a.vhdx', { readOnly: false });
  await disk.write(Buffer.alloc(512, 1), 0);
  await disk.flush();
  await assert.rejects(qemuFormatOf('/d/a.vhdx', 'vhdx', files, { write: false }), {
    code: 'DISK_NOT_FOR_QEMU',
    message: /log/,
  });
  await vhd!.create(files, '/d/a.vhd', 'fixed', 4 << 20);
  const { footer } = await inspectVhd('/d/a.vhd', files);
  files.contents.get('/d/a.vhd')!.write(encodeFooter({ ...footer, creatorApp: 'vs  ' }), 4 << 20);
  await assert.rejects(qemuFormatOf('/d/a.vhd', 'vhd', files, { write: false }), {
    code: 'DISK_NOT_FOR_QEMU',
    message: /4177920 bytes instead of 4194304/,
  });
});
