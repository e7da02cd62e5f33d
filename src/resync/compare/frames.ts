/**
 * What the two sides say to each other: docs/protocol/compare-stream.md has the byte tables and the order of the
 * conversation. Encoding returns parts for `FrameChannel.send`; decoding takes a body, the bounds that apply to it,
 * and refuses the rest.
 */
import { z } from 'zod';
import { EXIT_CODE, UnderstudyError, type ErrorKind } from '../../model/errors.ts';
import { ByteReader, ByteWriter, malformed } from './byte-cursor.ts';
import { DIGEST_BYTES, MEND_BYTES, PAGE_BYTES, type TreeShape, pagesPerLeaf, spansPerLeaf } from './tree-shape.ts';

export const COMPARE_VERSION = 4;

export const FRAME = {
  serve: 1,
  hello: 2,
  ranges: 3,
  group: 4,
  equal: 5,
  segmentHashes: 6,
  nodeHashes: 7,
  leafHashes: 8,
  differing: 9,
  agreed: 10,
  open: 11,
  pageHashes: 12,
  mend: 13,
  mended: 14,
  unproven: 15,
  zero: 16,
  zeroed: 17,
  checkpoint: 18,
  checkpointed: 19,
  askPage: 20,
  page: 21,
  done: 22,
  refused: 23,
  pace: 24,
} as const;

const ID_MAX = 2 ** 40;
const byteCount = z.int().min(0);
/** No limit that anybody can set is less, bytes a second. */
const PACE_MIN = 4096;

/** `ranges` is null for the whole disk, else the number of runs that follow in `ranges` frames. */
export const helloSchema = z.strictObject({
  protocol: z.literal('understudy-compare'),
  version: z.literal(COMPARE_VERSION),
  token: z.string().max(128),
  phase: z.string().max(64),
  mode: z.enum(['mend', 'compare-only']),
  virtualSize: byteCount,
  logicalSectorSize: byteCount,
  sameSectorSize: z.boolean(),
  leafBytes: byteCount,
  segmentNodes: byteCount,
  nodeHashBytes: z.int().min(1).max(16),
  pageHashBytes: z.int().min(1).max(16),
  /** Of the tags of this compare, as hexadecimal digits: leaf-tags.ts. */
  key: z.string().regex(/^[0-9a-f]{64}$/),
  ranges: byteCount.nullable(),
  /** Bytes a second that the source reads at most, until a `pace` says otherwise; null: no limit. */
  pace: z.int().min(PACE_MIN).nullable(),
});
export type Hello = z.infer<typeof helloSchema>;

export const welcomeSchema = z.strictObject({ virtualSize: byteCount, logicalSectorSize: byteCount });
export type Welcome = z.infer<typeof welcomeSchema>;

/** The first message of a program that started the other side over a remote shell. */
export const serveSchema = z.strictObject({
  version: z.literal(COMPARE_VERSION),
  role: z.enum(['source', 'target']),
  mode: z.enum(['mend', 'compare-only']),
  /** Bytes of the disk to create when there is nothing at the path; null refuses then. */
  create: byteCount.nullable(),
});
export type Serve = z.infer<typeof serveSchema>;

export const resultSchema = z.strictObject({
  comparedBytes: byteCount,
  differingBytes: byteCount,
  sentBytes: byteCount,
  wireBytes: byteCount,
  equal: z.boolean(),
  firstDifference: byteCount.nullable(),
});
/** Bytes; `docs/operating/cli.md` defines each. */
export type CompareResult = z.infer<typeof resultSchema>;

export const differencesSchema = z.strictObject({ differingPages: byteCount, firstDifference: byteCount.nullable() });
export type Differences = z.infer<typeof differencesSchema>;

const kinds = Object.keys(EXIT_CODE) as [ErrorKind, ...ErrorKind[]];
const refusalSchema = z.strictObject({
  kind: z.enum(kinds),
  code: z.string().regex(/^[A-Z][A-Z0-9_]{2,63}$/),
  message: z.string().max(2000),
  remedy: z.string().max(2000),
});

export function encodeJson(value: object): Uint8Array[] {
  return [Buffer.from(JSON.stringify(value))];
}

export function decodeJson<T>(body: Buffer, schema: z.ZodType<T>, what: string): T {
  if (body.length > 8192) throw malformed(`${what} of ${body.length} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    throw malformed(`${what} is not JSON`);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw malformed(`${what}: ${z.prettifyError(parsed.error).replaceAll(/\s+/g, ' ').slice(0, 500)}`);
}

export function encodeRefusal(error: Error): Uint8Array[] {
  const known = error instanceof UnderstudyError;
  return encodeJson({
    kind: known ? error.kind : 'io',
    code: known ? error.code : 'COMPARE_SIDE_FAILED',
    message: error.message.slice(0, 2000),
    remedy: (known ? error.remedy : 'Look into the log of the other host.').slice(0, 2000),
  });
}

/** The other side's error, as if it had happened here. */
export function decodeRefusal(body: Buffer): UnderstudyError {
  const { kind, code, message, remedy } = decodeJson(body, refusalSchema, 'a refusal');
  return new UnderstudyError(kind, code, message, remedy);
}

/** Blocks of short hashes, each with the index it belongs to; indexes ascend. */
export interface HashList {
  /** Group or batch. */
  id: number;
  round: number;
  entries: { index: number; hashes: Uint8Array }[];
}

export function encodeHashList({ id, round, entries }: HashList): Uint8Array[] {
  const writer = new ByteWriter().varint(id).byte(round).varint(entries.length);
  let next = 0;
  for (const { index, hashes } of entries) {
    writer.varint(index - next).bytes(hashes);
    next = index + 1;
  }
  return writer.take();
}

export function decodeHashList(
  body: Buffer,
  limits: { blockBytes: number; indexes: number; entries: number },
): HashList {
  const reader = new ByteReader(body);
  const id = reader.varint('an id', ID_MAX);
  const round = reader.byte('a round');
  const count = reader.varint('a count of hashes', limits.entries);
  const entries: HashList['entries'] = [];
  for (let next = 0; entries.length < count; next++) {
    next += reader.varint('an index', limits.indexes);
    if (next >= limits.indexes) throw malformed(`index ${next} of ${limits.indexes}`);
    entries.push({ index: next, hashes: reader.bytes('short hashes', limits.blockBytes) });
  }
  reader.end();
  return { id, round, entries };
}

/** Ascending numbers as gaps. */
function writeIndexes(writer: ByteWriter, indexes: readonly number[]): ByteWriter {
  writer.varint(indexes.length);
  let next = 0;
  for (const index of indexes) {
    writer.varint(index - next);
    next = index + 1;
  }
  return writer;
}

function readIndexes(reader: ByteReader, limit: number): number[] {
  const count = reader.varint('a count of indexes', limit);
  const indexes: number[] = [];
  for (let next = 0; indexes.length < count; next++) {
    next += reader.varint('an index', limit);
    if (next >= limit) throw malformed(`index ${next} of ${limit}`);
    indexes.push(next);
  }
  return indexes;
}

/** Runs of leaves, ascending and apart, as gap and count. */
export function encodeRuns(runs: readonly (readonly [first: number, count: number])[], after: number): Uint8Array[] {
  const writer = new ByteWriter().varint(runs.length);
  let next = after;
  for (const [first, count] of runs) {
    writer.varint(first - next).varint(count);
    next = first + count;
  }
  return writer.take();
}

export function decodeRuns(body: Buffer, after: number, limit: number): [first: number, count: number][] {
  const reader = new ByteReader(body);
  const count = reader.varint('a count of runs', limit);
  const runs: [number, number][] = [];
  for (let next = after; runs.length < count;) {
    const first = next + reader.varint('a gap', limit);
    const length = reader.varint('a run', limit);
    if (length === 0 || first + length > limit) throw malformed(`run ${first}+${length} of ${limit}`);
    runs.push([first, length]);
    next = first + length;
  }
  reader.end();
  return runs;
}

export const encodeGroup = (segments: number, root: Uint8Array): Uint8Array[] =>
  new ByteWriter().byte(segments).bytes(root).take();

export function decodeGroup(body: Buffer, segmentsMax: number): { segments: number; root: Buffer } {
  const reader = new ByteReader(body);
  const segments = reader.byte('segments');
  if (segments < 1 || segments > segmentsMax)
    throw malformed(`a group of ${segments} segments, 1 to ${segmentsMax} are left`);
  const root = reader.bytes('a root', DIGEST_BYTES);
  reader.end();
  return { segments, root };
}

/** Bytes a second, as a hello and a `pace` have it. */
export const paceOf = (rate: number | null): number | null => (rate === null ? null : Math.max(PACE_MIN, Math.round(rate)));

export const encodePace = (pace: number | null): Uint8Array[] => encodeId(pace ?? 0);

export function decodePace(body: Buffer): number | null {
  const { id: rate } = decodeId(body);
  if (rate !== 0 && rate < PACE_MIN) throw malformed(`a pace of ${rate} bytes a second`);
  return rate === 0 ? null : rate;
}

export const encodeId = (id: number, count = 0): Uint8Array[] => new ByteWriter().varint(id).varint(count).take();

/** An id and a count that belongs to it (pages that really differed; 0 where there is nothing to count). */
export function decodeId(body: Buffer): { id: number; count: number } {
  const reader = new ByteReader(body);
  const id = reader.varint('an id', 2 ** 53 - 1);
  const count = reader.varint('a count', ID_MAX);
  reader.end();
  return { id, count };
}

export interface DifferingLeaves {
  group: number;
  /** Within the group, ascending. */
  indexes: number[];
  rest: Uint8Array;
}

export const encodeDiffering = ({ group, indexes, rest }: DifferingLeaves): Uint8Array[] =>
  writeIndexes(new ByteWriter().varint(group), indexes).bytes(rest).take();

export function decodeDiffering(body: Buffer, indexLimit: number): DifferingLeaves {
  const reader = new ByteReader(body);
  const group = reader.varint('a group', ID_MAX);
  const indexes = readIndexes(reader, indexLimit);
  const rest = reader.bytes('a proof', DIGEST_BYTES);
  reader.end();
  return { group, indexes, rest };
}

/** A batch of leaves whose page hashes the source wants. */
export interface OpenLeaves {
  id: number;
  round: number;
  /** Ascending. */
  positions: number[];
}

export const encodeOpen = ({ id, round, positions }: OpenLeaves): Uint8Array[] =>
  writeIndexes(new ByteWriter().varint(id).byte(round), positions).take();

export function decodeOpen(body: Buffer, limits: { positions: number; leaves: number }): OpenLeaves {
  const reader = new ByteReader(body);
  const id = reader.varint('an id', ID_MAX);
  const round = reader.byte('a round');
  const positions = readIndexes(reader, limits.positions);
  reader.end();
  if (positions.length === 0 || positions.length > limits.leaves) throw malformed(`${positions.length} leaves opened at once`);
  return { id, round, positions };
}

/** Runs of positions that read as zeroes on the source. */
export interface ZeroRuns {
  id: number;
  runs: [first: number, count: number][];
}

export function encodeZeroRuns({ id, runs }: ZeroRuns): Uint8Array[] {
  return [...new ByteWriter().varint(id).take(), ...encodeRuns(runs, 0)];
}

export function decodeZeroRuns(body: Buffer, positions: number): ZeroRuns {
  const reader = new ByteReader(body);
  const id = reader.varint('an id', ID_MAX);
  return { id, runs: decodeRuns(reader.rest(), 0, positions) };
}

/** One leaf of a mend message: `mask` holds one byte per span, one bit per page, lowest first. */
export interface MendLeaf {
  position: number;
  mask: Uint8Array;
}

export interface Mend {
  id: number;
  leaves: MendLeaf[];
  /** BLAKE3 over the tags of all leaves as they are on the source: the pages sent, and those judged equal. */
  proof: Uint8Array;
  compressed: boolean;
  payload: Uint8Array;
  payloadBytes: number;
}

export function encodeMend(mend: Mend): Uint8Array[] {
  const writer = new ByteWriter().varint(mend.id).varint(mend.leaves.length);
  let next = 0;
  for (const { position, mask } of mend.leaves) {
    writer.varint(position - next);
    next = position + 1;
    const spans = [...mask.keys()].filter((span) => mask[span] !== 0);
    writer.byte(spans.reduce((bits, span) => bits | (1 << span), 0));
    writer.bytes(Uint8Array.from(spans, (span) => mask[span]!));
  }
  return writer
    .bytes(mend.proof)
    .byte(mend.compressed ? 1 : 0)
    .varint(mend.payloadBytes)
    .payload(mend.payload)
    .take();
}

export function decodeMend(body: Buffer, limits: { positions: number; leaves: number; shape: TreeShape }): Mend {
  const reader = new ByteReader(body);
  const id = reader.varint('an id', ID_MAX);
  const count = reader.varint('a count of leaves', limits.leaves);
  const leaves: MendLeaf[] = [];
  let pages = 0;
  for (let next = 0; leaves.length < count; next++) {
    next += reader.varint('a position', limits.positions);
    if (next >= limits.positions) throw malformed(`position ${next} of ${limits.positions}`);
    const mask = new Uint8Array(spansPerLeaf(limits.shape));
    const spans = reader.byte('a span mask');
    if (spans >= 1 << mask.length) throw malformed(`span mask ${spans} for ${mask.length} spans`);
    for (let span = 0; span < mask.length; span++) if (spans & (1 << span)) mask[span] = reader.byte('a page mask');
    pages += pagesIn(mask);
    leaves.push({ position: next, mask });
  }
  const proof = reader.bytes('a proof', DIGEST_BYTES);
  const encoding = reader.byte('an encoding');
  if (encoding > 1) throw malformed(`payload encoding ${encoding}`);
  const payloadBytes = reader.varint('a payload length', Math.min(MEND_BYTES, pages * PAGE_BYTES));
  const payload = reader.rest();
  if (encoding === 0 && payload.length !== payloadBytes)
    throw malformed(`${payload.length} bytes of payload for ${payloadBytes}`);
  return { id, leaves, proof, compressed: encoding === 1, payload, payloadBytes };
}

/** How many pages a mask names. */
export function pagesIn(mask: Uint8Array): number {
  let pages = 0;
  for (let bits of mask) for (; bits !== 0; bits &= bits - 1) pages++;
  return pages;
}

/** Runs of consecutive pages that a mask names, as first page and count within the leaf. */
export function pageRuns(mask: Uint8Array, shape: TreeShape): [first: number, count: number][] {
  const runs: [number, number][] = [];
  for (let page = 0; page < pagesPerLeaf(shape); page++) {
    if ((mask[page >> 3]! & (1 << (page & 7))) === 0) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === page) last[1]++;
    else runs.push([page, 1]);
  }
  return runs;
}
