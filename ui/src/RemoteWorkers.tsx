/** The page Remote Workers: its tabs, and the pages of one worker, bundle and runtime. */

import { Box, Heading, Tabs } from "@chakra-ui/react";
import { read } from "./api";
import { Audit } from "./pages/Audit";
import { BundlePage } from "./pages/BundlePage";
import { Bundles } from "./pages/Bundles";
import { Fleet } from "./pages/Fleet";
import { Jobs } from "./pages/Jobs";
import { Queues } from "./pages/Queues";
import { Releases } from "./pages/Releases";
import { RuntimePage } from "./pages/RuntimePage";
import { Runtimes } from "./pages/Runtimes";
import { Tokens } from "./pages/Tokens";
import { WorkerPage } from "./pages/WorkerPage";
import type { Me } from "./types";
import { useAddress } from "./useAddress";
import { useLive } from "./useLive";
import { words } from "./words";

const TABS = ["fleet", "queues", "jobs", "bundles", "runtimes", "releases", "tokens", "audit"] as const;
type Tab = (typeof TABS)[number];
/** Tabs for users with the right to manage workers. */
const MANAGER_TABS: readonly Tab[] = ["tokens", "audit"];

export function RemoteWorkers() {
  const address = useAddress();
  const me = useLive("me", (signal) => read<Me>("me", {}, signal), { everyMs: 60_000 }).value;
  const tabs = TABS.filter((tab) => me?.may_manage === true || !MANAGER_TABS.includes(tab));
  const tab: Tab = tabs.find((one) => one === address.get("tab")) ?? "fleet";
  const worker = address.get("worker");
  const bundle = address.get("bundle");
  const runtime = address.get("runtime");
  return (
    <Box h="100%" overflowY="auto" p="4">
      <Heading mb="3" size="lg">
        {words().title}
      </Heading>
      <Tabs.Root lazyMount onValueChange={({ value }) => address.go({ tab: value })} size="sm" unmountOnExit value={tab}>
        <Tabs.List flexWrap="wrap">
          {tabs.map((one) => (
            <Tabs.Trigger flexShrink="0" key={one} value={one}>
              {words().tabs[one]}
            </Tabs.Trigger>
          ))}
        </Tabs.List>
        <Tabs.Content value="fleet">{worker ? <WorkerPage key={worker} me={me} name={worker} /> : <Fleet me={me} />}</Tabs.Content>
        <Tabs.Content value="queues">
          <Queues me={me} />
        </Tabs.Content>
        <Tabs.Content value="jobs">
          <Jobs />
        </Tabs.Content>
        <Tabs.Content value="bundles">{bundle ? <BundlePage key={bundle} me={me} name={bundle} /> : <Bundles me={me} />}</Tabs.Content>
        <Tabs.Content value="runtimes">{runtime ? <RuntimePage key={runtime} me={me} name={runtime} /> : <Runtimes />}</Tabs.Content>
        <Tabs.Content value="releases">
          <Releases me={me} />
        </Tabs.Content>
        <Tabs.Content value="tokens">
          <Tokens />
        </Tabs.Content>
        <Tabs.Content value="audit">
          <Audit />
        </Tabs.Content>
      </Tabs.Root>
    </Box>
  );
}
