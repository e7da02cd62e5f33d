/**
 * Who may use the host over HTTP: one-time sign-in tokens, the sessions they begin, and tokens for programs.
 *
 * Invariants
 * - Secrets exist here only as their SHA-256: neither the catalog, nor a backup of it, nor a log lets anybody in.
 * - A sign-in token works once, and only for a short time. It is gone before the session exists, so two browsers cannot share it.
 * - A session ends at a fixed instant. Nothing prolongs it.
 * - Sessions and program tokens are durable before they are handed out: a restart of the server signs nobody out.
 * - Each kind has a bound; the oldest goes first.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { UnderstudyError } from '../../model/errors.ts';
import { HOUR_MS } from '../../model/limits.ts';
import type { Clock, Random } from '../../model/ports.ts';
import type { Catalog } from '../../model/records.ts';
import { ROLES, SIGN_IN_MINUTES, type Role } from '../../model/roles.ts';

const SIGN_INS_MAX = 16;
const SESSIONS_MAX = 64;
const TOKENS_MAX = 64;
const SECRET_BYTES = 32;
const KEY = 'console-access';

const session = z.object({ hash: z.string(), role: z.enum(ROLES), createdAt: z.number(), expiresAt: z.number() });
const token = session.extend({ name: z.string() });
const stored = z.object({ sessions: z.array(session).default([]), tokens: z.array(token).default([]) });
type Stored = z.infer<typeof stored>;

/** What a request may do, and until when. */
export interface Grant {
  /** Names the session in limits; never the secret. */
  id: string;
  role: Role;
  expiresAt: number;
}

export interface AccessParts {
  catalog: Pick<Catalog, 'value' | 'setValue' | 'transaction'>;
  clock: Clock;
  random: Random;
}

export class Access {
  readonly #parts: AccessParts;
  /** Not durable: a token that nobody used before a restart is asked for again. */
  #signIns: { hash: string; role: Role; sessionMs: number; expiresAt: number }[] = [];

  constructor(parts: AccessParts) {
    this.#parts = parts;
  }

  /** A token for one sign-in. The session it begins lasts `sessionHours`. */
  addSignIn(role: Role, sessionHours: number): { token: string; expiresAt: number } {
    const secret = this.#secret();
    const expiresAt = this.#now() + SIGN_IN_MINUTES * 60_000;
    const open = this.#signIns.filter((entry) => entry.expiresAt > this.#now()).slice(-(SIGN_INS_MAX - 1));
    this.#signIns = [...open, { hash: hashOf(secret), role, sessionMs: sessionHours * HOUR_MS, expiresAt }];
    return { token: secret, expiresAt };
  }

  /** Uses a sign-in token up. Throws TOKEN_INVALID for one that is unknown, used or too old. */
  signIn(secret: string): { secret: string; grant: Grant } {
    const hash = hashOf(secret);
    const found = this.#signIns.find((entry) => sameHash(entry.hash, hash) && entry.expiresAt > this.#now());
    this.#signIns = this.#signIns.filter((entry) => entry !== found);
    if (found === undefined) {
      throw new UnderstudyError('usage', 'TOKEN_INVALID', 'this sign-in token is unknown, used already, or older than ' +
        `${SIGN_IN_MINUTES} minutes`, 'Get a fresh one on the host: understudy console');
    }
    const own = this.#secret();
    const now = this.#now();
    const entry = { hash: hashOf(own), role: found.role, createdAt: now, expiresAt: now + found.sessionMs };
    this.#change(({ sessions, tokens }) => ({ sessions: [...sessions, entry].slice(-SESSIONS_MAX), tokens }));
    return { secret: own, grant: grantOf(entry) };
  }

  session(secret: string): Grant | null {
    return this.#find('sessions', secret);
  }

  program(secret: string): Grant | null {
    return this.#find('tokens', secret);
  }

  /** Whether a grant that was given a while ago still holds. */
  holds(grant: Grant): boolean {
    const { sessions, tokens } = this.#read();
    return [...sessions, ...tokens].some((entry) => grantOf(entry).id === grant.id && entry.expiresAt > this.#now());
  }

  signOut(grant: Grant): void {
    this.#change(({ sessions, tokens }) => ({ sessions: sessions.filter((entry) => grantOf(entry).id !== grant.id), tokens }));
  }

  /** Ends every session; how many there were. */
  endSessions(): number {
    const count = this.#read().sessions.filter(({ expiresAt }) => expiresAt > this.#now()).length;
    this.#change(({ tokens }) => ({ sessions: [], tokens }));
    return count;
  }

  addToken(name: string, role: Role, days: number): { token: string; expiresAt: number } {
    const { tokens } = this.#live();
    if (tokens.some((entry) => entry.name === name)) {
      throw new UnderstudyError('usage', 'TOKEN_EXISTS', `there is a token '${name}' already`,
        `Choose another name, or remove it: understudy token remove '${name}'`);
    }
    if (tokens.length >= TOKENS_MAX) {
      throw new UnderstudyError('state', 'TOO_MANY_TOKENS', `this host has ${tokens.length} tokens, at most ${TOKENS_MAX}`,
        'Remove those that nobody uses: understudy token list');
    }
    const secret = this.#secret();
    const now = this.#now();
    const entry = { name, hash: hashOf(secret), role, createdAt: now, expiresAt: now + days * 24 * HOUR_MS };
    this.#change((before) => ({ ...before, tokens: [...before.tokens, entry] }));
    return { token: secret, expiresAt: entry.expiresAt };
  }

  tokens(): { name: string; role: Role; createdAt: number; expiresAt: number }[] {
    return this.#live().tokens.map(({ name, role, createdAt, expiresAt }) => ({ name, role, createdAt, expiresAt }));
  }

  removeToken(name: string): { name: string; role: Role; createdAt: number; expiresAt: number } {
    const found = this.tokens().find((entry) => entry.name === name);
    if (found === undefined) {
      throw new UnderstudyError('usage', 'TOKEN_NOT_FOUND', `there is no token '${name}'`, 'See: understudy token list');
    }
    this.#change((before) => ({ ...before, tokens: before.tokens.filter((entry) => entry.name !== name) }));
    return found;
  }

  #find(kind: 'sessions' | 'tokens', secret: string): Grant | null {
    const hash = hashOf(secret);
    const found = this.#read()[kind].find((entry) => sameHash(entry.hash, hash) && entry.expiresAt > this.#now());
    return found === undefined ? null : grantOf(found);
  }

  #read(): Stored {
    return stored.parse(this.#parts.catalog.value(KEY) ?? {});
  }

  #live(): Stored {
    const { sessions, tokens } = this.#read();
    const live = ({ expiresAt }: { expiresAt: number }) => expiresAt > this.#now();
    return { sessions: sessions.filter(live), tokens: tokens.filter(live) };
  }

  #change(change: (before: Stored) => Stored): void {
    const { catalog } = this.#parts;
    catalog.transaction(() => catalog.setValue(KEY, change(this.#live())));
  }

  #secret(): string {
    return Buffer.from(this.#parts.random.bytes(SECRET_BYTES)).toString('base64url');
  }

  #now(): number {
    return this.#parts.clock.now();
  }
}

const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex');
const sameHash = (a: string, b: string): boolean => timingSafeEqual(Buffer.from(a, 'hex'), Buffer.from(b, 'hex'));
const grantOf = ({ hash, role, expiresAt }: { hash: string; role: Role; expiresAt: number }): Grant =>
  ({ id: hash.slice(0, 16), role, expiresAt });
