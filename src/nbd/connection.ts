/**
 * One client, from accept to goodbye: handshake, attachment to an export, transmission, and an orderly end.
 *
 * Invariants
 * - After `end` no further request is started; those under way are answered, then the socket closes.
 * - After the socket has closed, nothing is sent, but operations of the export that are under way keep their memory
 *   until they end.
 * - `done` resolves when both are over; only then does the export hear `clientGone`.
 */
import type { Socket } from 'node:net';
import {
  NBD_CLIENT_FLAGS_BYTES, NBD_HANDSHAKE_FLAG, NBD_OPTION_BYTES, NBD_REP, decodeOptionHeader, encodeGreeting,
  encodeOptionError, isMalformed,
} from '../disk/nbd/protocol.ts';
import { UnderstudyError, messageOf } from '../model/errors.ts';
import type { Clock, Logger } from '../model/ports.ts';
import { BusyPoll } from './busy-poll.ts';
import type { ClientInfo, NbdExport } from './export.ts';
import { Haggling, type Attach, type ExportCatalogue } from './haggling.ts';
import { Inbox, SPILL } from './inbox.ts';
import type { NbdLimits } from './limits.ts';
import { Outbox } from './outbox.ts';
import { readByEvents, readInto } from './read-into.ts';
import type { SlabPool } from './slab-pool.ts';
import { Transmission } from './transmission.ts';

export interface ConnectionPorts {
  catalogue: ExportCatalogue;
  pool: SlabPool;
  limits: NbdLimits;
  clock: Pick<Clock, 'monotonic'>;
  log: Logger;
}

type Phase = 'flags' | 'options' | 'transmission' | 'ending' | 'closed' | 'gone';

export class Connection {
  readonly client: ClientInfo;
  readonly done: Promise<void>;
  readonly #ports: ConnectionPorts;
  readonly #socket: Socket;
  readonly #inbox: Inbox;
  readonly #outbox: Outbox;
  readonly #haggling: Haggling;
  readonly #poll: BusyPoll;
  #phase: Phase = 'flags';
  /** Set with `accepted` by the export, until `clientGone`. */
  #target: NbdExport | null = null;
  #transmission: Transmission | null = null;
  /** The socket is not read, because requests wait for memory or for others to end. */
  #isPaused = false;
  #isInLine = false;
  #isTurnScheduled = false;
  #reason = '';
  #isFault = false;
  #failures = 0;
  #sawBytes = true;
  #movedAt: number;
  readonly #startedAt: number;
  readonly #resolveDone: () => void;

  /**
   * `accepted` is a paused socket; `now` is monotonic. `secured`: greeting and client flags are exchanged already, and the socket
   * is one of TLS (tls-door.ts).
   */
  constructor(accepted: Socket, id: number, now: number, ports: ConnectionPorts, secured: Haggling | null = null) {
    const { pool, limits, catalogue } = ports;
    const finished = Promise.withResolvers<void>();
    this.done = finished.promise;
    this.#resolveDone = finished.resolve;
    this.#ports = ports;
    this.#startedAt = this.#movedAt = now;
    this.#inbox = new Inbox(pool);
    this.#poll = new BusyPoll(ports.clock, limits.pollMs);
    this.#haggling = secured ?? new Haggling(catalogue, limits);
    const { remoteAddress, remotePort } = accepted;
    this.client = { id, address: remoteAddress === undefined ? 'unix' : `${remoteAddress}:${remotePort}` };
    this.#socket = (secured === null ? readInto : readByEvents)(accepted, {
      target: () => (this.#isReading ? this.#inbox.target() : SPILL),
      received: (count, from) => this.#received(count, from),
    });
    this.#outbox = new Outbox(this.#socket, pool, (replies, payloadBytes) => this.#written(replies, payloadBytes));
    this.#socket.on('error', (error) => this.#explain(`the connection broke: ${messageOf(error)}`, false));
    this.#socket.on('end', () => this.#peerEnded());
    this.#socket.on('close', () => this.#closed());
    if (secured === null) this.#socket.write(encodeGreeting(NBD_HANDSHAKE_FLAG.FIXED_NEWSTYLE | NBD_HANDSHAKE_FLAG.NO_ZEROES));
    else this.#phase = 'options';
  }

  get exportName(): string | null {
    return this.#target?.name ?? null;
  }

  /** Operations of the export that have not ended. */
  get executing(): number {
    return this.#transmission?.executing ?? 0;
  }

  /** Takes no more requests, answers those under way, then closes. The first reason is the one that counts. */
  end(reason: string, options: { isFault: boolean } = { isFault: false }): void {
    if (this.#isOver) return;
    this.#explain(reason, options.isFault);
    this.#phase = 'ending';
    this.#leaveLine();
    this.#turn();
  }

  /** Closes at once; operations under way end unanswered. */
  cut(reason: string): void {
    if (this.#phase === 'closed' || this.#phase === 'gone') return;
    this.#explain(reason, true);
    this.#phase = 'ending';
    this.#leaveLine();
    this.#socket.destroy();
  }

  /** Called about once a second: enforces the time limits. */
  watch(now: number): void {
    const { limits, pool } = this.#ports;
    if (this.#sawBytes) this.#movedAt = now;
    this.#sawBytes = false;
    const isHandshaking = this.#phase === 'flags' || this.#phase === 'options';
    if (isHandshaking && now - this.#startedAt > limits.handshakeMs) {
      this.cut(`the handshake took longer than ${limits.handshakeMs} ms`);
    } else if (this.#waitsForPeer && now - this.#movedAt > limits.stallMs) {
      if (pool.isShort) this.cut(`no byte moved for ${limits.stallMs} ms while others wait for its memory`);
      else if (this.#phase === 'ending') this.cut(`the client did not take its last replies for ${limits.stallMs} ms`);
    }
  }

  get #isReading(): boolean {
    return !this.#isPaused && !this.#isOver;
  }

  get #isOver(): boolean {
    return this.#phase === 'ending' || this.#phase === 'closed' || this.#phase === 'gone';
  }

  get #waitsForPeer(): boolean {
    return this.#inbox.isMidPayload || this.#outbox.isWaiting;
  }

  #received(count: number, from: Buffer): boolean {
    if (this.#isOver) return false;
    this.#sawBytes = true;
    this.#inbox.accept(count, from);
    if (this.#phase !== 'transmission') this.#handshake();
    // The handshake may have just led to transmission, with requests already behind it.
    if (this.#transmission !== null) this.#pump();
    this.#outbox.flush();
    this.#closeWhenAnswered();
    if (this.#transmission?.isMidRequest === false && this.executing === 0) this.#poll.answered();
    return this.#isReading;
  }

  #handshake(): void {
    while (this.#phase === 'flags' || this.#phase === 'options') {
      const taken = this.#phase === 'flags' ? this.#takeClientFlags() : this.#takeOption();
      if (!taken) return;
    }
  }

  /** False when more bytes are needed. */
  #takeClientFlags(): boolean {
    const inbox = this.#inbox;
    if (inbox.available < NBD_CLIENT_FLAGS_BYTES) return false;
    const fault = this.#haggling.clientFlags(inbox.slab.bytes.readUInt32BE(inbox.parsed));
    inbox.consume(NBD_CLIENT_FLAGS_BYTES);
    if (fault === null) this.#phase = 'options';
    else this.end(fault, { isFault: true });
    return true;
  }

  #takeOption(): boolean {
    const inbox = this.#inbox;
    const { optionBytes } = this.#ports.limits;
    if (inbox.available < NBD_OPTION_BYTES) return !inbox.makeRoom(NBD_OPTION_BYTES);
    const header = decodeOptionHeader(inbox.slab.bytes.subarray(inbox.parsed, inbox.parsed + NBD_OPTION_BYTES));
    if (isMalformed(header)) {
      this.end(header.malformed, { isFault: true });
      return true;
    }
    const { option, length } = header;
    if (length > optionBytes) {
      const message = `option ${option} with ${length} bytes of data, at most ${optionBytes}`;
      this.#socket.write(encodeOptionError(option, NBD_REP.ERR_TOO_BIG, message));
      this.end(message, { isFault: true });
      return true;
    }
    const whole = NBD_OPTION_BYTES + length;
    if (inbox.available < whole) return !inbox.makeRoom(whole);
    const data = inbox.slab.bytes.subarray(inbox.parsed + NBD_OPTION_BYTES, inbox.parsed + whole);
    const step = this.#haggling.option(option, data);
    inbox.consume(whole);
    if (step.kind === 'attach') this.#attach(step.attach);
    else if (step.replies.length > 0) this.#socket.write(Buffer.concat(step.replies));
    if (step.kind === 'close') this.end(step.reason, { isFault: step.replies.length === 0 });
    return true;
  }

  #attach({ target, session, accepted, refused }: Attach): void {
    const { pool, limits, log } = this.#ports;
    try {
      target.clientConnected(this.client);
    } catch (error) {
      log.warn({ client: this.client, export: target.name, error: messageOf(error) }, 'the export refused an NBD client');
      const isExpected = error instanceof UnderstudyError;
      const message = isExpected ? `${error.message}. ${error.remedy}` : 'the export cannot be attached now';
      if (refused === null) this.end('the export refused the client', { isFault: true });
      else this.#socket.write(refused(message));
      return;
    }
    this.#target = target;
    this.#socket.write(accepted);
    this.#transmission = new Transmission({
      target, session, inbox: this.#inbox, outbox: this.#outbox, pool, limits,
      ended: () => this.#turnSoon(),
      onFailure: (what, error) => this.#operationFailed(what, error),
    });
    this.#phase = 'transmission';
    log.info({ client: this.client, export: target.name }, 'an NBD client attached');
  }

  #pump(): void {
    if (this.#phase !== 'transmission') return;
    const pause = this.#transmission!.pump();
    this.#isPaused = pause.kind === 'wait';
    const memoryBytes = pause.kind === 'wait' ? pause.memoryBytes : 0;
    if (memoryBytes === 0) this.#leaveLine();
    else if (!this.#isInLine) {
      this.#isInLine = true;
      this.#ports.pool.wait(memoryBytes, this.#memoryIsFree);
    }
    if (pause.kind === 'end') this.end(pause.reason, pause);
  }

  readonly #memoryIsFree = (): void => {
    this.#isInLine = false;
    this.#turn();
  };

  #leaveLine(): void {
    if (this.#isInLine) this.#ports.pool.cancel(this.#memoryIsFree);
    this.#isInLine = false;
  }

  /** Replies of operations that end in one turn of the event loop leave together. */
  #turnSoon(): void {
    if (this.#isTurnScheduled) return;
    this.#isTurnScheduled = true;
    setImmediate(this.#scheduledTurn);
  }

  readonly #scheduledTurn = (): void => {
    this.#isTurnScheduled = false;
    this.#turn();
  };

  #turn(): void {
    if (this.#phase === 'closed') this.#finishWhenIdle();
    if (this.#phase === 'closed' || this.#phase === 'gone') return;
    if (this.#isPaused) {
      this.#pump();
      if (this.#isReading) this.#socket.resume();
    }
    this.#outbox.flush();
    this.#closeWhenAnswered();
  }

  #written(replies: number, payloadBytes: number): void {
    this.#sawBytes = true;
    this.#transmission?.written(replies, payloadBytes);
    if (this.#isPaused) this.#turnSoon();
    else this.#closeWhenAnswered();
  }

  #closeWhenAnswered(): void {
    if (this.#phase !== 'ending' || this.#socket.writableEnded) return;
    if ((this.#transmission?.unanswered ?? 0) === 0) this.#socket.destroySoon();
  }

  #peerEnded(): void {
    const isMidway = this.#transmission?.isMidRequest ?? true;
    this.end(isMidway ? 'the client hung up in the middle of a message' : 'the client hung up', { isFault: isMidway });
  }

  #closed(): void {
    this.#explain('the client hung up', false);
    this.#phase = 'closed';
    this.#leaveLine();
    this.#transmission?.abandon();
    this.#inbox.dispose();
    this.#outbox.dispose();
    this.#finishWhenIdle();
  }

  #finishWhenIdle(): void {
    if (this.executing > 0) return;
    this.#phase = 'gone';
    const target = this.#target;
    this.#target = null;
    const { requests = 0, refused = 0 } = this.#transmission ?? {};
    const counts = { requests, refused, failures: this.#failures };
    const fields = { client: this.client, export: target?.name, reason: this.#reason, ...counts };
    if (this.#isFault) this.#ports.log.warn(fields, 'an NBD connection was closed');
    else this.#ports.log.info(fields, 'an NBD connection ended');
    target?.clientGone(this.client);
    this.#resolveDone();
  }

  #explain(reason: string, isFault: boolean): void {
    if (this.#reason !== '') return;
    this.#reason = reason;
    this.#isFault = isFault;
  }

  /**
   * A failing disk fails thousands of requests: the first of a connection is news, the number comes with the last line.
   */
  #operationFailed(what: string, error: unknown): void {
    this.#failures += 1;
    const fields = { client: this.client, export: this.#target?.name, operation: what, error: messageOf(error) };
    if (this.#failures === 1) this.#ports.log.error(fields, 'a request of an NBD client failed; further ones are counted only');
    else this.#ports.log.debug(fields, 'a request of an NBD client failed');
  }
}
