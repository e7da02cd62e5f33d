/**
 * The target of a compare: answers the source, and in mend mode writes what differs. Its scan runs ahead of the
 * questions, on another thread for raw files, so that both disks are read at the same time.
 */
import { UnderstudyError } from '../../model/errors.ts';
import { malformed } from './byte-cursor.ts';
import { Conversation } from './conversation.ts';
import type { Frame, FrameChannel } from './frame-channel.ts';
import {
  COMPARE_VERSION,
  type CompareResult,
  FRAME,
  type Hello,
  decodeJson,
  decodePace,
  decodeRuns,
  encodeJson,
  helloSchema,
  resultSchema,
} from './frames.ts';
import type { LeafHasher } from './leaf-hasher.ts';
import { leafTagger } from './leaf-tags.ts';
import { sessionMismatch, sizeMismatch } from './mismatch.ts';
import type { TargetOptions } from './options.ts';
import { Selection } from './selection.ts';
import { Settlement } from './settlement.ts';
import { TargetGroups } from './target-groups.ts';
import { TargetLeaves } from './target-leaves.ts';
import { PacedLine } from './paced-line.ts';
import { PAGE_BYTES, type TreeShape, segmentLeaves, shapeRefusal } from './tree-shape.ts';
import { HasherAtNeed, hasherFor } from './worker-hasher.ts';

/** Answers one compare and resolves with the source's result; rejects with the first failure of either side. */
export async function runTarget(channel: FrameChannel, options: TargetOptions): Promise<CompareResult> {
  const conversation = new Conversation(channel);
  const opened: LeafHasher[] = [];
  try {
    return await conversation.run(options.signal, async () => {
      const { hello, selection } = await greet(conversation, options);
      const { leafBytes, segmentNodes } = hello;
      const shape = { leafBytes, segmentNodes };
      const { base, target } = options;
      const key = Buffer.from(hello.key, 'hex');
      const followed = new FollowedPace(conversation, hello.pace, options.clock);
      const shared = { shape, key, pace: options.pace ?? ((bytes: number) => followed.pass(bytes)) };
      const scanner = await hasherFor(base, shared);
      opened.push(scanner);
      const pages = base === target ? scanner : new HasherAtNeed(() => hasherFor(target, shared));
      if (pages !== scanner) opened.push(pages);
      return new Target({ conversation, options, hello, key, selection, shape, scanner, pages, followed }).run();
    });
  } finally {
    for (const hasher of opened) await hasher.close();
  }
}

/** Checks everything that can be refused before a byte of the disk is read. */
async function greet(
  conversation: Conversation,
  options: TargetOptions,
): Promise<{ hello: Hello; selection: Selection }> {
  const { target } = options;
  const { body } = await conversation.expect(FRAME.hello);
  checkVersion(body);
  const hello = decodeJson(body, helloSchema, 'a hello');
  const refusal = sessionMismatch(options.session, hello) ?? sizeMismatch(hello, target);
  if (refusal !== null) throw refusal;
  const reason = shapeRefusal(hello);
  if (reason !== null) throw malformed(reason);
  if (hello.mode === 'mend' && (options.allow !== 'mend' || target.readOnly)) {
    throw new UnderstudyError(
      'state',
      'DISK_READ_ONLY',
      `${target.location} may only be compared, and the source asks to change it`,
      'Open the target for writing, or compare only.',
    );
  }
  const selection = await readSelection(conversation, hello);
  await conversation.send(
    FRAME.hello,
    encodeJson({ virtualSize: target.virtualSize, logicalSectorSize: target.logicalSectorSize }),
  );
  return { hello, selection };
}

/** Before the rest of the message: another version may have other fields. */
function checkVersion(body: Buffer): void {
  let version: unknown;
  try {
    version = (JSON.parse(body.toString('utf8')) as { version?: unknown } | null)?.version;
  } catch {
    return; // Refused as malformed by the schema.
  }
  if (typeof version !== 'number' || version === COMPARE_VERSION) return;
  throw new UnderstudyError(
    'peer',
    'COMPARE_VERSION_MISMATCH',
    `the source speaks version ${version} of the compare stream, this side version ${COMPARE_VERSION}`,
    'Install the same version of Understudy on both hosts.',
  );
}

async function readSelection(
  conversation: Conversation,
  { ranges, virtualSize, leafBytes }: Hello,
): Promise<Selection> {
  if (ranges === null) return Selection.whole(virtualSize, leafBytes);
  const leaves = Math.ceil(virtualSize / leafBytes);
  if (ranges > leaves) throw malformed(`${ranges} ranges on a disk of ${leaves} leaves`);
  const runs: [number, number][] = [];
  for (let after = 0; runs.length < ranges;) {
    const { body } = await conversation.expect(FRAME.ranges);
    const more = decodeRuns(body, after, leaves);
    if (more.length === 0 || runs.length + more.length > ranges)
      throw malformed(`${runs.length + more.length} of ${ranges} ranges`);
    for (const run of more) runs.push(run);
    const last = more.at(-1)!;
    after = last[0] + last[1];
  }
  return Selection.ofRuns(runs, virtualSize, leafBytes);
}

interface TargetParts {
  conversation: Conversation;
  options: TargetOptions;
  hello: Hello;
  key: Buffer;
  selection: Selection;
  shape: TreeShape;
  scanner: LeafHasher;
  pages: LeafHasher;
  followed: FollowedPace;
}

/** As fast as the source has said it reads; without a clock as fast as this side can. */
class FollowedPace {
  #rate: number | null;
  readonly #line: PacedLine | null;

  constructor(conversation: Conversation, rate: number | null, clock: TargetOptions['clock']) {
    this.#rate = rate;
    this.#line = clock === undefined ? null : new PacedLine(clock, () => this.#rate, conversation.failed);
  }

  follow(rate: number | null): void {
    this.#rate = rate;
  }

  pass(bytes: number): Promise<void> | void {
    return this.#line?.pass(bytes);
  }
}

class Target {
  readonly #conversation: Conversation;
  readonly #options: TargetOptions;
  readonly #selection: Selection;
  readonly #settlement: Settlement;
  readonly #groups: TargetGroups;
  readonly #leaves: TargetLeaves;
  readonly #followed: FollowedPace;
  #scannedBytes = 0;
  #result: CompareResult | null = null;

  constructor({ conversation, options, hello, key, selection, shape, scanner, pages, followed }: TargetParts) {
    this.#followed = followed;
    this.#conversation = conversation;
    this.#options = options;
    this.#selection = selection;
    this.#settlement = new Settlement(selection, shape);
    const { compute, target } = options;
    const shared = { conversation, selection, shape, compute, tag: leafTagger(key) };
    this.#leaves = new TargetLeaves({
      ...shared,
      hasher: pages,
      target,
      hashBytes: hello.pageHashBytes,
      mode: hello.mode,
      admit: options.admit ?? (() => {}),
      clock: options.clock,
      onProven: (positions) => {
        for (const position of positions) this.#settlement.proven(position);
        this.#report();
      },
    });
    this.#groups = new TargetGroups({
      ...shared,
      hasher: scanner,
      hashBytes: hello.nodeHashBytes,
      onScanned: (bytes) => {
        this.#scannedBytes += bytes;
        this.#report();
      },
      onLocated: (segments, differing) => {
        const segmentOf = (position: number) => Math.floor(position / segmentLeaves(shape));
        for (const segment of segments)
          this.#settlement.located(
            segment,
            differing.filter((position) => segmentOf(position) === segment),
          );
        this.#leaves.add(differing);
        this.#report();
      },
    });
  }

  async run(): Promise<CompareResult> {
    await this.#conversation.together([
      this.#groups.scan(),
      this.#groups.answerLoop(),
      this.#leaves.openLoop(),
      this.#leaves.writeLoop(),
      this.#receive(),
    ]);
    const result = this.#result!;
    const first = [result.firstDifference, this.#leaves.firstDifference].filter((offset) => offset !== null);
    return {
      ...result,
      wireBytes: this.#conversation.channel.wireBytes,
      firstDifference: first.length === 0 ? null : Math.min(...first),
    };
  }

  async #receive(): Promise<void> {
    while (this.#result === null) {
      this.#onFrame(await this.#conversation.receive());
      await this.#conversation.until(() => !this.#leaves.full);
    }
    if (!this.#settlement.done) throw malformed('the source says it is done before everything is proven');
    const { differingPages, firstDifference } = this.#leaves;
    this.#groups.finish();
    this.#leaves.finish();
    await this.#conversation.send(FRAME.done, encodeJson({ differingPages, firstDifference }));
  }

  #onFrame(frame: Frame): void {
    const { type, body } = frame;
    switch (type) {
      case FRAME.group:
        return this.#groups.onGroup(body);
      case FRAME.nodeHashes:
        return this.#groups.onNodeHashes(body);
      case FRAME.differing:
        return this.#groups.onDiffering(body);
      case FRAME.open:
        return this.#leaves.onOpen(body);
      case FRAME.pace:
        return this.#followed.follow(decodePace(body));
      case FRAME.mend:
      case FRAME.zero:
      case FRAME.checkpoint:
      case FRAME.askPage:
        return this.#leaves.onWrite(frame);
      case FRAME.done:
        this.#result = decodeJson(body, resultSchema, 'a result');
        return;
      default:
        throw malformed(`message ${type} is not for a target`);
    }
  }

  #report(): void {
    this.#options.onProgress?.({
      phase: this.#settlement.done
        ? 'finishing'
        : this.#scannedBytes < this.#selection.totalBytes
          ? 'comparing'
          : 'mending',
      totalBytes: this.#selection.totalBytes,
      scannedBytes: this.#scannedBytes,
      comparedBytes: this.#settlement.comparedBytes,
      differingBytes: this.#leaves.differingPages * PAGE_BYTES,
      sentBytes: this.#leaves.sentBytes,
      wireBytes: this.#conversation.channel.wireBytes,
    });
  }
}
