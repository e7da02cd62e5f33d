import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SqliteCatalog } from '../../catalog/sqlite-catalog.ts';
import { HOUR_MS } from '../../model/limits.ts';
import { Access } from './access.ts';

/** A clock that a test moves, and a catalog that outlives the server. */
function rig() {
  let now = Date.parse('2031-05-04T10:00:00Z');
  let drawn = 0;
  const catalog = SqliteCatalog.open(':memory:');
  const clock = { now: () => now, monotonic: () => now, sleep: () => Promise.resolve() };
  const random = { uuid: () => '', bytes: (count: number) => new Uint8Array(count).fill(drawn++) };
  const server = () => new Access({ catalog, clock, random });
  return { catalog, server, pass: (ms: number) => (now += ms) };
}

test('a sign-in token works once', () => {
  const access = rig().server();
  const { token } = access.addSignIn('reader', 1);
  const { secret, grant } = access.signIn(token);
  assert.equal(grant.role, 'reader');
  assert.equal(access.session(secret)!.id, grant.id);
  assert.throws(() => access.signIn(token), { code: 'TOKEN_INVALID' });
});

test('a sign-in token is void after ten minutes, and after a restart', () => {
  const { server, pass } = rig();
  const access = server();
  const [early, late] = [access.addSignIn('administrator', 1), access.addSignIn('administrator', 1)];
  assert.throws(() => server().signIn(early.token), { code: 'TOKEN_INVALID' });
  pass(10 * 60_000 - 1);
  access.signIn(early.token);
  pass(1);
  assert.throws(() => access.signIn(late.token), { code: 'TOKEN_INVALID' });
});

test('a session outlives a restart of the server, and ends at its instant', () => {
  const { server, pass } = rig();
  const access = server();
  const { secret, grant } = access.signIn(access.addSignIn('administrator', 2).token);
  pass(2 * HOUR_MS - 1);
  assert.equal(server().session(secret)!.id, grant.id);
  assert.equal(server().holds(grant), true);
  pass(1);
  assert.equal(server().session(secret), null);
  assert.equal(server().holds(grant), false);
});

test('signing out ends that session only; ending all ends all, and leaves the tokens of programs', () => {
  const access = rig().server();
  const [one, two] = [1, 2].map(() => access.signIn(access.addSignIn('administrator', 1).token));
  const program = access.addToken('prometheus', 'reader', 1);
  access.signOut(one!.grant);
  assert.equal(access.session(one!.secret), null);
  assert.notEqual(access.session(two!.secret), null);
  assert.equal(access.endSessions(), 1);
  assert.equal(access.session(two!.secret), null);
  assert.equal(access.program(program.token)!.role, 'reader');
});

test('a session is no token and a token is no session', () => {
  const access = rig().server();
  const { secret } = access.signIn(access.addSignIn('administrator', 1).token);
  const { token } = access.addToken('x', 'administrator', 1);
  assert.equal(access.program(secret), null);
  assert.equal(access.session(token), null);
  access.removeToken('x');
  assert.equal(access.program(token), null);
  assert.throws(() => access.removeToken('x'), { code: 'TOKEN_NOT_FOUND' });
});

test('the catalog holds no secret', () => {
  const { catalog, server } = rig();
  const access = server();
  const { secret } = access.signIn(access.addSignIn('administrator', 1).token);
  const { token } = access.addToken('x', 'administrator', 1);
  const kept = JSON.stringify(catalog.value('console-access'));
  assert.ok(!kept.includes(secret) && !kept.includes(token));
});

test('names of tokens are taken once, and there are at most 64', () => {
  const { server, pass } = rig();
  const access = server();
  for (let at = 0; at < 64; at++) access.addToken(`t${at}`, 'reader', 1);
  assert.throws(() => access.addToken('t1', 'reader', 1), { code: 'TOKEN_EXISTS' });
  assert.throws(() => access.addToken('more', 'reader', 1), { code: 'TOO_MANY_TOKENS' });
  pass(24 * HOUR_MS);
  access.addToken('more', 'reader', 1);
  assert.deepEqual(access.tokens().map(({ name }) => name), ['more']);
});
