import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SUSPECT_RANGES_MAX } from './direction-messages.ts';
import { decodeRanges, encodeRanges } from './suspect-ranges.ts';

const MIB = 1 << 20;

test('what one side names the other one reads', () => {
  const named = new Map([['d0', [{ offset: 0, length: MIB }, { offset: 2 ** 45, length: 512 }]], ['d1', []]]);
  const { disks, payload } = encodeRanges(named);
  assert.deepEqual(disks, [{ diskId: 'd0', ranges: 2 }, { diskId: 'd1', ranges: 0 }]);
  assert.deepEqual(decodeRanges(disks, payload), named);
});

test('too many ranges become coarser, and none gets lost', () => {
  const ranges = Array.from({ length: SUSPECT_RANGES_MAX }, (_, index) => ({ offset: index * 2 * MIB, length: MIB }));
  const { disks, payload } = encodeRanges(new Map([['d0', ranges], ['d1', ranges]]));
  assert.ok(payload.length <= SUSPECT_RANGES_MAX * 16);
  const found = decodeRanges(disks, payload)!.get('d0')!;
  let at = 0;
  for (const { offset, length } of ranges) {
    while (found[at]!.offset + found[at]!.length < offset + length) at++;
    assert.ok(found[at]!.offset <= offset, `range at ${offset} is covered`);
  }
});

test('bytes that are not what is announced are refused', () => {
  const { disks, payload } = encodeRanges(new Map([['d0', [{ offset: 0, length: MIB }]]]));
  for (const bytes of [payload.subarray(1), Buffer.concat([payload, payload]), Buffer.alloc(0)]) assert.equal(decodeRanges(disks, bytes), null);
});
