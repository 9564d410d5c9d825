/** One queue's rules and policy: what its jobs may use, by kind; for managers, with what it takes to change them. */

import { Badge, Box, Button, CloseButton, DataList, HStack, Text, VStack } from "@chakra-ui/react";
import { useState } from "react";
import { act, asProblem, path, Problem, read } from "../api";
import { KINDS, type Kind, type Listed, type Policy, type Queue } from "../types";
import { useLive } from "../useLive";
import { words } from "../words";
import { Line, Sheet } from "./Ask";
import { Loading, Span, Trouble } from "./Facts";
import { Select } from "./Select";

/** The name that stands for every queue. */
export const ALL_QUEUES = "*";

interface QueueSheetProps {
  name: string;
  /** What the list says of it; of all queues it says nothing. */
  queue: Queue | undefined;
  mayManage: boolean;
  onDone: () => void;
  onClose: () => void;
}

export function QueueSheet({ name, queue, mayManage, onDone, onClose }: QueueSheetProps) {
  const policies = useLive("policies", (signal) => read<Listed<Policy>>("policies", {}, signal), { of: ["audit"] });
  const [problem, setProblem] = useState<Problem>();
  const policy = policies.value?.items.find((one) => one.queue === name);
  const { explained, policyOf, changed } = words();

  async function change(method: "PUT" | "POST" | "DELETE", address: string, wish?: unknown): Promise<boolean> {
    setProblem(undefined);
    try {
      await act(method, address, wish);
      return true;
    } catch (error) {
      setProblem(asProblem(error));
      return false;
    } finally {
      policies.again();
      onDone();
    }
  }

  return (
    <Sheet onClose={onClose} title={policyOf(name)}>
      <VStack align="stretch" gap="4">
        {name === ALL_QUEUES ? null : (
          <Rules
            key={queue?.lost_after_s}
            lostAfterS={queue?.lost_after_s ?? null}
            mayManage={mayManage}
            onSet={(wish) => change("PUT", path("queues", name, "rules"), wish)}
            onUnset={() => change("DELETE", path("queues", name, "rules"))}
            onWrong={setProblem}
          />
        )}
        <Text>{name === ALL_QUEUES ? explained.policyOfAll : explained.policy}</Text>
        {policies.value ? (
          <>
            <Mode
              mayManage={mayManage}
              mode={policy?.mode ?? null}
              onSet={(mode) => void change("PUT", path("policies", name, "mode"), { mode })}
              unset={name === ALL_QUEUES ? words().state_of.modeUnset : words().state_of.modeOfAll}
            />
            <Allowed
              onTakeBack={mayManage ? (kind, glob) => void change("POST", path("policies", name, "deny"), { [kind]: [glob] }) : undefined}
              policy={policy}
            />
            {mayManage ? <Allow onAllow={(kind, glob) => change("POST", path("policies", name, "allow"), { [kind]: [glob] })} /> : null}
            {policy ? (
              <Text color="fg.muted" fontSize="xs">
                {changed(policy.changed_by)}
              </Text>
            ) : null}
          </>
        ) : policies.problem ? null : (
          <Loading />
        )}
        <Trouble problem={problem ?? policies.problem} />
      </VStack>
    </Sheet>
  );
}

interface RulesProps {
  lostAfterS: number | null;
  mayManage: boolean;
  onSet: (wish: { lost_after_s: number }) => Promise<boolean>;
  onUnset: () => Promise<boolean>;
  onWrong: (problem: Problem) => void;
}

function Rules({ lostAfterS, mayManage, onSet, onUnset, onWrong }: RulesProps) {
  const [typed, setTyped] = useState(lostAfterS === null ? "" : String(lostAfterS));
  const { actions, ask, explained, fields, state_of, wrong } = words();
  if (!mayManage) {
    return (
      <HStack>
        <Text fontWeight="bold">{fields.lostAfter}</Text>
        {lostAfterS === null ? <Text>{state_of.asSet}</Text> : <Span seconds={lostAfterS} />}
      </HStack>
    );
  }
  function set(): void {
    const seconds = Number(typed);
    if (seconds > 0) void onSet({ lost_after_s: seconds });
    else onWrong(new Problem(wrong.lostAfter, 0, "invalid"));
  }
  return (
    <Box>
      <Text mb="2">{explained.lostAfter}</Text>
      <HStack align="end">
        <Line label={ask.lostAfter} onChange={setTyped} value={typed} />
        <Button onClick={set} size="sm" variant="outline">
          {actions.setRules}
        </Button>
        {lostAfterS === null ? null : (
          <Button onClick={() => void onUnset()} size="sm" variant="outline">
            {actions.unsetRules}
          </Button>
        )}
      </HStack>
    </Box>
  );
}

interface ModeProps {
  mode: Policy["mode"];
  /** What holds while the queue has no mode of its own. */
  unset: string;
  mayManage: boolean;
  onSet: (mode: string) => void;
}

function Mode({ mode, unset, mayManage, onSet }: ModeProps) {
  const { ask, mode: modes } = words();
  return (
    <HStack>
      <Text fontWeight="bold">{ask.mode}</Text>
      {mayManage ? (
        <Select choices={mode === null ? { "": unset, ...modes } : modes} label={ask.mode} onChange={onSet} value={mode ?? ""} />
      ) : (
        <Text>{mode === null ? unset : modes[mode]}</Text>
      )}
    </HStack>
  );
}

/** What is allowed, by kind; each name with a way to take it back. */
function Allowed({ policy, onTakeBack }: { policy: Policy | undefined; onTakeBack: ((kind: Kind, glob: string) => void) | undefined }) {
  const { actions, kinds, state_of } = words();
  return (
    <DataList.Root orientation="horizontal" size="sm">
      {KINDS.map((kind) => (
        <DataList.Item key={kind}>
          <DataList.ItemLabel>{kinds[kind]}</DataList.ItemLabel>
          <DataList.ItemValue>
            <HStack gap="1" wrap="wrap">
              {policy?.[kind].length ? null : <Text color="fg.muted">{state_of.nothingAllowed}</Text>}
              {policy?.[kind].map((glob) => (
                <Badge key={glob} variant="outline">
                  {glob}
                  {onTakeBack ? <CloseButton aria-label={actions.takeBack(glob)} onClick={() => onTakeBack(kind, glob)} size="2xs" /> : null}
                </Badge>
              ))}
            </HStack>
          </DataList.ItemValue>
        </DataList.Item>
      ))}
    </DataList.Root>
  );
}

function Allow({ onAllow }: { onAllow: (kind: Kind, glob: string) => Promise<boolean> }) {
  const [kind, setKind] = useState<Kind>("connections");
  const [glob, setGlob] = useState("");
  const { actions, fields, kinds } = words();
  async function allow(): Promise<void> {
    if (await onAllow(kind, glob.trim())) setGlob("");
  }
  return (
    <HStack align="end">
      <Select choices={kinds} label={fields.kind} onChange={(value) => setKind(value as Kind)} value={kind} />
      <Line label={fields.name} onChange={setGlob} value={glob} />
      <Button disabled={!glob.trim()} onClick={() => void allow()} size="sm" variant="outline">
        {actions.allow}
      </Button>
    </HStack>
  );
}
