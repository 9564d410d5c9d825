/** One queue's rules and policy: what its jobs may use, by kind. Users with the right to manage workers can change them. */

import { Badge, Button, CloseButton, DataList, HStack, Text, VStack } from "@chakra-ui/react";
import { useState } from "react";
import { act, asProblem, path, read, type Problem } from "../api";
import { KINDS, type Kind, type Listed, type Policy, type Queue } from "../types";
import { useLive } from "../useLive";
import { words } from "../words";
import { DialogFrame, TextField } from "./Dialog";
import { ErrorNotice, Loading } from "./Notices";
import { ALL_QUEUES, QueueRules } from "./QueueRules";
import { Select } from "./Select";

interface QueueDialogProps {
  name: string;
  /** Its row in the list; undefined: it has no jobs, workers or rules. */
  queue: Queue | undefined;
  mayManage: boolean;
  onDone: () => void;
  onClose: () => void;
}

export function QueueDialog({ name, queue, mayManage, onDone, onClose }: QueueDialogProps) {
  const policies = useLive("policies", (signal) => read<Listed<Policy>>("policies", {}, signal), { subjects: ["audit"] });
  const [problem, setProblem] = useState<Problem>();
  const policy = policies.value?.items.find((one) => one.queue === name);
  const { explanations, policyOf, changed } = words();

  async function change(method: "PUT" | "POST" | "DELETE", route: string, body?: unknown): Promise<boolean> {
    setProblem(undefined);
    try {
      await act(method, route, body);
      return true;
    } catch (error) {
      setProblem(asProblem(error));
      return false;
    } finally {
      policies.refresh();
      onDone();
    }
  }

  return (
    <DialogFrame onClose={onClose} title={policyOf(name)}>
      <VStack align="stretch" gap="4">
        <QueueRules mayManage={mayManage} name={name} onChange={change} onInvalid={setProblem} queue={queue} />
        <Text>{name === ALL_QUEUES ? explanations.policyOfAll : explanations.policy}</Text>
        {policies.value ? (
          <>
            <ModeSelect
              mayManage={mayManage}
              mode={policy?.mode ?? null}
              onSet={(mode) => void change("PUT", path("policies", name, "mode"), { mode })}
              unset={name === ALL_QUEUES ? words().notes.modeUnset : words().notes.modeOfAll}
            />
            <Allowed
              onDisallow={mayManage ? (kind, glob) => void change("POST", path("policies", name, "deny"), { [kind]: [glob] }) : undefined}
              policy={policy}
            />
            {mayManage ? <AllowForm onAllow={(kind, glob) => change("POST", path("policies", name, "allow"), { [kind]: [glob] })} /> : null}
            {policy ? (
              <Text color="fg.muted" fontSize="xs">
                {changed(policy.changed_by)}
              </Text>
            ) : null}
          </>
        ) : policies.problem ? null : (
          <Loading />
        )}
        <ErrorNotice problem={problem ?? policies.problem} />
      </VStack>
    </DialogFrame>
  );
}

interface ModeSelectProps {
  mode: Policy["mode"];
  /** The label for a queue that has no mode of its own. */
  unset: string;
  mayManage: boolean;
  onSet: (mode: string) => void;
}

function ModeSelect({ mode, unset, mayManage, onSet }: ModeSelectProps) {
  const { prompts, mode: modes } = words();
  return (
    <HStack>
      <Text fontWeight="bold">{prompts.mode}</Text>
      {mayManage ? (
        <Select choices={mode === null ? { "": unset, ...modes } : modes} label={prompts.mode} onChange={onSet} value={mode ?? ""} />
      ) : (
        <Text>{mode === null ? unset : modes[mode]}</Text>
      )}
    </HStack>
  );
}

/** The allowed names by kind, each with a button that removes it. */
function Allowed({ policy, onDisallow }: { policy: Policy | undefined; onDisallow: ((kind: Kind, glob: string) => void) | undefined }) {
  const { actions, kinds, notes } = words();
  return (
    <DataList.Root orientation="horizontal" size="sm">
      {KINDS.map((kind) => (
        <DataList.Item key={kind}>
          <DataList.ItemLabel>{kinds[kind]}</DataList.ItemLabel>
          <DataList.ItemValue>
            <HStack gap="1" wrap="wrap">
              {policy?.[kind].length ? null : <Text color="fg.muted">{notes.nothingAllowed}</Text>}
              {policy?.[kind].map((glob) => (
                <Badge key={glob} variant="outline">
                  {glob}
                  {onDisallow ? <CloseButton aria-label={actions.disallow(glob)} onClick={() => onDisallow(kind, glob)} size="2xs" /> : null}
                </Badge>
              ))}
            </HStack>
          </DataList.ItemValue>
        </DataList.Item>
      ))}
    </DataList.Root>
  );
}

function AllowForm({ onAllow }: { onAllow: (kind: Kind, glob: string) => Promise<boolean> }) {
  const [kind, setKind] = useState<Kind>("connections");
  const [glob, setGlob] = useState("");
  const { actions, fields, kinds } = words();
  async function allow(): Promise<void> {
    if (await onAllow(kind, glob.trim())) setGlob("");
  }
  return (
    <HStack align="end">
      <Select choices={kinds} label={fields.kind} onChange={(value) => setKind(value as Kind)} value={kind} />
      <TextField label={fields.name} onChange={setGlob} value={glob} />
      <Button disabled={!glob.trim()} onClick={() => void allow()} size="sm" variant="outline">
        {actions.allow}
      </Button>
    </HStack>
  );
}
