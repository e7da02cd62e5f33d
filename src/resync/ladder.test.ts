import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DiskRecord } from '../model/records.ts';
import { RESYNC_TRIGGERS, type TriggerNumber } from '../model/resync-trigger.ts';
import { checkCharacteristics, planOf, readBytesOf } from './ladder.ts';

const GIB = 1 << 30;
const disk: DiskRecord = {
  diskId: 'd0', path: '/vm/os.raw', format: 'raw', virtualSize: GIB, logicalSectorSize: 512,
  geometry: { cylinders: 10, heads: 16, sectorsPerTrack: 63 },
};
const theirs = { diskId: 'd0', path: '/store/os.raw', missing: false, format: 'raw', virtualSize: GIB, logicalSectorSize: 512,
  geometry: { cylinders: 10, heads: 16, sectorsPerTrack: 63 } };
const suspects = new Map([['d0', [{ offset: 0, length: 1 << 20 }, { offset: 5 << 20, length: 2 << 20 }]]]);
const triggers = Object.keys(RESYNC_TRIGGERS).map(Number) as TriggerNumber[];

for (const trigger of triggers) {
  const byMap = [2, 3, 4].includes(trigger);
  test(`trigger ${trigger} with a trusted map is repaired by ${byMap ? 'suspect-regions' : 'full-compare'}`, () => {
    const plan = planOf({ trigger }, [disk], suspects, new Set());
    assert.equal(plan.rung, byMap ? 'suspect-regions' : 'full-compare');
    assert.equal(readBytesOf(plan), byMap ? 3 << 20 : GIB);
    assert.ok(plan.reason.startsWith(RESYNC_TRIGGERS[trigger].because));
  });

  test(`trigger ${trigger} without a trusted map is repaired by a full compare, and without a replica disk by a full copy`,
    () => {
    assert.equal(planOf({ trigger }, [disk], null, new Set()).rung, 'full-compare');
    const copy = planOf({ trigger }, [disk], suspects, new Set(['d0']));
    assert.equal(copy.rung, 'full-copy');
    assert.equal(readBytesOf(copy), GIB);
  });
}

test('equal characteristics pass, and a missing file has none', () => {
  checkCharacteristics('web', [disk], [theirs]);
  checkCharacteristics('web', [disk], [{ ...theirs, missing: true, virtualSize: 1 }]);
});

const mismatches: [string, Partial<typeof theirs>, RegExp][] = [
  ['SIZE_MISMATCH', { virtualSize: 7 }, /os\.raw has 1073741824 bytes on the primary, its replica \/store\/os\.raw has 7$/],
  ['SECTOR_SIZE_MISMATCH', { logicalSectorSize: 4096 }, /has 512 bytes in a logical sector on the primary.*has 4096$/],
  ['GEOMETRY_MISMATCH', { geometry: { cylinders: 10, heads: 16, sectorsPerTrack: 17 } },
    /has 10\/16\/63 as geometry.*has 10\/16\/17$/],
];
for (const [code, change, message] of mismatches) {
  test(`${code} names both values and is a matter of state`, () => {
    assert.throws(() => checkCharacteristics('web', [disk], [{ ...theirs, ...change }]),
      (error: { code: string; kind: string; message: string; remedy: string }) => {
        assert.deepEqual([error.code, error.kind], [code, 'state']);
        assert.match(error.message, message);
        assert.ok(error.remedy.length > 0);
        return true;
      });
  });
}

test('another set of disks is DISK_SET_MISMATCH, whichever side has more, and says how many each has', () => {
  const other = { ...theirs, diskId: 'd1', path: '/store/data.raw' };
  for (const [replica, message] of [
    [[], /has 1 replicated disk on the primary, its replica has 0 .*: the replica has none for .*os\.raw$/],
    [[theirs, other], /has 1 .* replica has 2 replicated disks: the primary has none for \/store\/data\.raw$/],
    [[other], /the replica has none for .*os\.raw, and the primary has none for \/store\/data\.raw$/],
  ] as const) assert.throws(() => checkCharacteristics('web', [disk], [...replica]), { code: 'DISK_SET_MISMATCH', message });
});
