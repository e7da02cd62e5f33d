/** Sign-in, frame and pages. */
import { useEffect, useMemo, useState, type MouseEvent } from 'react';
import { dismissRestart, stopWatching, useLive, watch } from './data/live.ts';
import { hrefOf, useRoute, type Route } from './data/route.ts';
import { currentSession, SessionContext, signIn, signOut, takeTokenFromAddress, useSession, type Session } from './data/session.ts';
import { Refusal } from './data/call.ts';
import { SignIn } from './pages/sign-in.tsx';
import { Overview } from './pages/overview.tsx';
import { VmPage } from './pages/vm.tsx';
import { Queue } from './pages/queue.tsx';
import { Events } from './pages/events.tsx';
import { Peers } from './pages/peers.tsx';
import { EnableWizard } from './pages/enable.tsx';
import { AddVm } from './pages/add-vm.tsx';
import { ThemeButton } from './parts/theme.tsx';
import { Loading } from './parts/loading.tsx';

type Standing = { signed: 'unknown' } | { signed: 'out'; why: string | null } | { signed: 'in'; session: Session };

let beginning: Promise<Standing> | null = null;

/** Once per page, also where React mounts twice: a sign-in token works only once. */
function begin(): Promise<Standing> {
  const token = takeTokenFromAddress();
  return (token === null ? currentSession() : signIn(token)).then(
    (session): Standing => (session === null ? { signed: 'out', why: null } : { signed: 'in', session }),
    (error: unknown): Standing => ({ signed: 'out', why: error instanceof Refusal ? `${error.message}. ${error.remedy}` : String(error) }),
  );
}

export function App() {
  const [standing, setStanding] = useState<Standing>({ signed: 'unknown' });
  useEffect(() => {
    beginning ??= begin();
    void beginning.then(setStanding);
  }, []);
  const context = useMemo(() => {
    if (standing.signed !== 'in') return null;
    const leave = async () => {
      stopWatching();
      await signOut().catch(() => undefined);
      setStanding({ signed: 'out', why: 'You have signed out.' });
    };
    return { session: standing.session, signOut: () => void leave() };
  }, [standing]);
  if (standing.signed === 'unknown')
    return <Loading />;
  if (standing.signed === 'out') return <SignIn why={standing.why} onSignedIn={(session) => setStanding({ signed: 'in', session })} />;
  return (
    <SessionContext value={context}>
      <Frame onSessionEnded={() => setStanding({ signed: 'out', why: 'Your session has ended. Sign in again to go on.' })} />
    </SessionContext>
  );
}

function Frame({ onSessionEnded }: { onSessionEnded: () => void }) {
  const route = useRoute();
  const { host } = useLive();
  const { session, signOut: leave } = useSession();
  const vm = route.page === 'vm' ? route.vm : null;
  useEffect(() => watch(vm, onSessionEnded), [vm]);
  useEffect(() => {
    document.title = `${titleOf(route)} – ${host?.name ?? session.hostName} – Understudy`;
  }, [route, host, session]);
  return (
    <>
      <a className="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header className="bar">
        <a className="brand" href="#/">
          <img src="/mark.svg" alt="" width="22" height="22" />
          Understudy<span className="host">{host?.name ?? session.hostName}</span>
        </a>
        <Navigation route={route} />
        <span className="bar-end">
          {session.role === 'reader' ? (
            <span className="tag" title="This session may only read">
              Read only
            </span>
          ) : null}
          <ThemeButton />
          <button type="button" className="quiet" onClick={leave}>
            Sign out
          </button>
        </span>
      </header>
      <ConnectionNote />
      <main id="main" tabIndex={-1}>
        <Page route={route} />
      </main>
    </>
  );
}

/** The address names the page: a link to an anchor would leave it. */
function skip(event: MouseEvent): void {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

function Navigation({ route }: { route: Route }) {
  const { vms, queue } = useLive();
  const critical = [...vms.values()].filter(({ health }) => health === 'Critical').length;
  const items = [
    ['overview', 'Overview', critical],
    ['queue', 'Queue', queue.length],
    ['events', 'Events', 0],
    ['peers', 'Peers', 0],
  ] as const;
  return (
    <nav aria-label="Pages">
      {items.map(([page, label, number]) => (
        <a
          key={page}
          href={hrefOf({ page })}
          aria-current={route.page === page || (route.page === 'vm' && page === 'overview') ? 'page' : undefined}
        >
          {label}
          {number > 0 ? <span className={page === 'overview' ? 'badge critical' : 'badge'}>{number}</span> : null}
        </a>
      ))}
    </nav>
  );
}

/** Never silent about a page that has stopped being live. */
function ConnectionNote() {
  const { connection, restartedAt } = useLive();
  return (
    <div role="status" aria-live="polite">
      {connection === 'lost' ? (
        <p className="banner warning">The server does not answer. What you see may be old; the page connects again by itself.</p>
      ) : null}
      {connection === 'live' && restartedAt !== null ? (
        <p className="banner info">
          The server was restarted. The page is connected again.
          <button type="button" className="quiet" onClick={dismissRestart}>
            Close
          </button>
        </p>
      ) : null}
    </div>
  );
}

function Page({ route }: { route: Route }) {
  switch (route.page) {
    case 'overview':
      return <Overview />;
    case 'vm':
      return <VmPage key={route.vm} name={route.vm} tab={route.tab} />;
    case 'queue':
      return <Queue />;
    case 'events':
      return <Events />;
    case 'peers':
      return <Peers />;
    case 'enable':
      return <EnableWizard />;
    case 'add':
      return <AddVm />;
    default:
      return route satisfies never;
  }
}

function titleOf(route: Route): string {
  const titles = { overview: 'Overview', queue: 'Queue', events: 'Events', peers: 'Peers', enable: 'Enable replication', add: 'Add a VM' };
  return route.page === 'vm' ? route.vm : titles[route.page];
}
