import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  FRAME,
  type HashList,
  type Mend,
  decodeDiffering,
  decodeGroup,
  decodeHashList,
  decodeId,
  decodeMend,
  decodeOpen,
  decodeRefusal,
  decodeRuns,
  decodeZeroRuns,
  encodeDiffering,
  encodeGroup,
  encodeHashList,
  encodeId,
  encodeMend,
  encodeOpen,
  encodeRefusal,
  encodeRuns,
  encodeZeroRuns,
  pageRuns,
  pagesIn,
} from './frames.ts';
import type { TreeShape } from './tree-shape.ts';

const LARGE: TreeShape = { leafBytes: 256 * 1024, segmentNodes: 32 };

const join = (parts: readonly Uint8Array[]): Buffer => Buffer.concat(parts);
const ascending = (limit: number) =>
  fc.uniqueArray(fc.nat(limit - 1), { maxLength: 40 }).map((list) => list.sort((a, b) => a - b));
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

test('every message reads back as it was written, and not with a byte less or more', () => {
  const hashes = fc.record({
    id: fc.nat(2 ** 31),
    round: fc.nat(15),
    entries: ascending(5000).chain((indexes) =>
      fc.tuple(...indexes.map((index) => fc.record({ index: fc.constant(index), hashes: bytes(16) }))),
    ),
  });
  const same = <T>(value: T, encoded: readonly Uint8Array[], decode: (body: Buffer) => T) => {
    assert.deepEqual(plain(decode(join(encoded))), plain(value));
    assert.throws(() => decode(join(encoded).subarray(0, -1)), { code: 'COMPARE_FRAME_MALFORMED' });
    assert.throws(() => decode(join([...encoded, Buffer.alloc(1)])), { code: 'COMPARE_FRAME_MALFORMED' });
  };
  const limits = { blockBytes: 16, indexes: 5000, entries: 40 };
  fc.assert(
    fc.property(hashes, ascending(900), bytes(32), fc.nat(2 ** 40), (list, indexes, proof, id) => {
      same<HashList>(list, encodeHashList(list), (body) => decodeHashList(body, limits));
      same({ group: 7, indexes, rest: proof }, encodeDiffering({ group: 7, indexes, rest: proof }), (body) =>
        decodeDiffering(body, 900),
      );
      same({ segments: 3, root: proof }, encodeGroup(3, proof), (body) => decodeGroup(body, 16) as never);
      if (indexes.length > 0) {
        const open = { id: 5, round: 2, positions: indexes };
        same(open, encodeOpen(open), (body) => decodeOpen(body, { positions: 900, leaves: 40 }));
      }
      same({ id, count: 300 }, encodeId(id, 300), decodeId);
      const runs = indexes.filter((_, at) => at % 2 === 0).map((index) => [index * 3, 2] as [number, number]);
      same({ id: 5, runs }, encodeZeroRuns({ id: 5, runs }), (body) => decodeZeroRuns(body, 3000));
      same(runs, encodeRuns(runs, 0), (body) => decodeRuns(body, 0, 3000));
    }),
  );
});

test('a mend message reads back as it was written', () => {
  fc.assert(
    fc.property(ascending(1000), fc.infiniteStream(bytes(8)), bytes(32), (positions, masks, proof) => {
      const leaves = positions.slice(0, 4).map((position) => ({ position, mask: masks.next().value! }));
      const pages = leaves.reduce((sum, { mask }) => sum + pagesIn(mask), 0);
      const payload = Buffer.alloc(pages * 4096, 3);
      const mend: Mend = { id: 9, leaves, proof, compressed: false, payload, payloadBytes: payload.length };
      const body = join(encodeMend(mend));
      const limits = { positions: 1000, leaves: 4, shape: LARGE };
      assert.deepEqual(plain(decodeMend(body, limits)), plain(mend));
      assert.throws(() => decodeMend(body.subarray(0, -1), limits), { code: 'COMPARE_FRAME_MALFORMED' });
      if (leaves.length > 1) assert.throws(() => decodeMend(body, { ...limits, leaves: 1 }), /over 1/);
    }),
  );
});

test('page runs and page counts of a mask are the same pages', () => {
  fc.assert(
    fc.property(bytes(8), (mask) => {
      const runs = pageRuns(mask, LARGE);
      const pages = runs.flatMap(([first, count]) => Array.from({ length: count }, (_, at) => first + at));
      assert.equal(pages.length, pagesIn(mask));
      const rebuilt = new Uint8Array(8);
      for (const page of pages) rebuilt[page >> 3]! |= 1 << (page & 7);
      assert.deepEqual(rebuilt, mask);
    }),
  );
});

test('a refusal arrives as the same error, and an error of the program as a failure of that side', () => {
  const refused = decodeRefusal(join(encodeRefusal(new Error('x is not a function'))));
  assert.deepEqual([refused.kind, refused.code, refused.message], ['io', 'COMPARE_SIDE_FAILED', 'x is not a function']);
  assert.throws(() => decodeRefusal(Buffer.from('{"kind":"io","code":"a b","message":"","remedy":""}')), /refusal/);
  assert.throws(() => decodeRefusal(Buffer.from('not json')), /not JSON/);
});

test('numbers without end and beyond their bounds are refused', () => {
  assert.throws(() => decodeId(Buffer.alloc(20, 0x80)), /number without end|over/);
  assert.throws(
    () => decodeHashList(Buffer.from([0, 0, 200, 1]), { blockBytes: 2, indexes: 9, entries: 100 }),
    /over 100/,
  );
  assert.throws(() => decodeRuns(Buffer.from([1, 5, 0]), 0, 100), /run 5\+0/);
  assert.throws(() => decodeRuns(Buffer.from([1, 99, 2]), 0, 100), /run 99\+2/);
});

test('the protocol page lists every message with its number', async () => {
  const page = await readFile(new URL('../../../docs/protocol/compare-stream.md', import.meta.url), 'utf8');
  for (const [name, type] of Object.entries(FRAME)) assert.match(page, new RegExp(`^\\| ${type} \\| \`${name}\``, 'm'));
});

/** Buffers and typed arrays alike. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)]));
}
