/** Access over HTTP, given and taken from the command line. */
import { SESSION_HOURS_DEFAULT, TOKEN_DAYS_DEFAULT, type Role } from '../../model/roles.ts';
import type { HostOperations } from '../api/contract.ts';
import type { Access } from '../console/access.ts';

type Operations = Pick<HostOperations, 'console.sign-in' | 'console.end-sessions' | 'token.add' | 'token.list' | 'token.remove'>;

export interface ConsoleFacts {
  access: Access;
  /** `http://127.0.0.1:7780`, once it listens. */
  address(): string;
  pageBuilt: boolean;
}

const iso = (time: number): string => new Date(time).toISOString();
const shape = ({ name, role, createdAt, expiresAt }: { name: string; role: Role; createdAt: number; expiresAt: number }) =>
  ({ name, role, createdAt: iso(createdAt), expiresAt: iso(expiresAt) });

export function consoleOperations({ access, address, pageBuilt }: ConsoleFacts): Operations {
  return {
    'console.sign-in': async ({ role = 'administrator', sessionHours = SESSION_HOURS_DEFAULT }) => {
      const { token, expiresAt } = access.addSignIn(role, sessionHours);
      // In the fragment: a browser sends that part to nobody, so the token is in no log on the way.
      return { url: `${address()}/#token=${token}`, role, expiresAt: iso(expiresAt), pageBuilt };
    },
    'console.end-sessions': async () => ({ ended: access.endSessions() }),
    'token.add': async ({ name, role = 'administrator', days = TOKEN_DAYS_DEFAULT }) => {
      const { token } = access.addToken(name, role, days);
      return { ...shape(access.tokens().find((entry) => entry.name === name)!), token };
    },
    'token.list': async () => access.tokens().map(shape),
    'token.remove': async ({ name }) => shape(access.removeToken(name)),
  };
}
