import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { judge, LANES, line, SLOT_BYTES, SLOTS, type Found } from './records.ts';

const DISKS = 2;

/** The disks after `steps` steps of the guest (append, rewrite, rename), written down as the guest's own script says it. */
function after(steps: number): Found {
  const found: Found = {
    lanes: Array.from({ length: LANES }, () => ''),
    slots: Array.from({ length: DISKS }, () => Buffer.alloc(SLOTS * SLOT_BYTES)),
    renamed: null,
  };
  for (let n = 1, left = steps; ; n++) {
    if (left-- === 0) return found;
    found.lanes[n % LANES] += line(n);
    if (left-- === 0) return found;
    const slot = n % SLOTS;
    found.slots[(slot + 1) % DISKS]!.write(line(n), slot * SLOT_BYTES, 'latin1');
    if (n % 16 !== 0) continue;
    if (left-- === 0) return found;
    found.renamed = line(n);
  }
}

const onDisk = (found: Found, disk: number): Found => ({
  lanes: found.lanes.map((text, lane) => (lane % DISKS === disk ? text : '')),
  slots: found.slots.map((slots, index) => (index === disk ? slots : Buffer.alloc(0))),
  renamed: disk === 0 ? found.renamed : null,
});

/** Disk 0 of one instant with disk 1 of another: what a replica without one point in time would hold. */
function mixture(first: Found, second: Found): Found {
  const [one, two] = [onDisk(first, 0), onDisk(second, 1)];
  return { lanes: one.lanes.map((text, lane) => text + two.lanes[lane]!), slots: [one.slots[0]!, two.slots[1]!], renamed: one.renamed };
}

test('the line of a record is 255 bytes long and tells its number twice', () => {
  assert.equal(line(7).length, 255);
  assert.equal(line(1), `0000000001 0000020264 ${'0'.repeat(222)}0000020264\n`);
});

test('every instant of the guest is a prefix', () => {
  for (let steps = 0; steps < 300; steps++) assert.deepEqual(judge(after(steps)).problems, [], `${steps} steps`);
  assert.equal(judge(after(2 * 15)).records, 15);
});

test('half a line at the end of the lane whose turn it is belongs to a prefix', () => {
  const found = after(2 * 9);
  found.lanes[10 % LANES] += line(10).slice(0, 100);
  assert.deepEqual(judge(found), { records: 9, problems: [] });
  found.lanes[11 % LANES] += line(11).slice(0, 100);
  assert.equal(judge(found).problems.length, 1);
});

test('two disks of instants that are five steps or more apart are never a prefix', () => {
  const instant = fc.integer({ min: 0, max: 400 });
  fc.assert(fc.property(instant, fc.integer({ min: 5, max: 80 }), fc.boolean(), (steps, apart, which) => {
    const [old, young] = [after(steps), after(steps + apart)];
    const found = which ? mixture(old, young) : mixture(young, old);
    assert.notDeepEqual(judge(found).problems, []);
  }), { seed: 20260101, numRuns: 300 });
});

test('a record that is lost, repeated, damaged or rolled back in its slot is seen', () => {
  const broken: ((found: Found) => void)[] = [
    (found) => (found.lanes[2] = found.lanes[2]!.replace(line(6), '')),
    (found) => (found.lanes[2] += line(6)),
    (found) => (found.lanes[1] = found.lanes[1]!.replace('0000000005', '0000000055')),
    (found) => found.slots[0]!.write(line(3), 3 * SLOT_BYTES, 'latin1'),
    (found) => found.slots[1]!.fill(0, 4 * SLOT_BYTES, 5 * SLOT_BYTES),
    (found) => (found.renamed = line(16)),
    (found) => (found.renamed = null),
  ];
  for (const [index, breakIt] of broken.entries()) {
    const found = after(2 * 50 + 3);
    assert.deepEqual(judge(found), { records: 50, problems: [] });
    breakIt(found);
    assert.notDeepEqual(judge(found).problems, [], `breakage ${index} is not seen`);
  }
});
